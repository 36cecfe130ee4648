//! The stream: made if there is none, and whether this server can have one.

use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind, RequestErrorKind,
};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};

use super::Names;
use crate::adapter::nats::{Fault, NatsConfig, Session};
use crate::checkup::Report;

/// What is older is of no use to anybody: no setting lets a webhook be tried for longer.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Copies of the stream in a cluster of servers, so that one of them may be lost.
const COPIES: usize = 3;

/// Why there is no stream.
#[derive(Debug)]
pub(super) enum Unready {
    /// It may be there in a moment.
    Away(Fault),
    /// Somebody has to change something.
    Unusable(Fault),
}

const NO_JETSTREAM: &str = "the server at `nats.urls` does not have JetStream, or not for this account: start \
                            nats-server with `jetstream { store_dir: … }` (or -js) and allow it to the account, or set \
                            `webhooks.queue` to redis or memory";

/// Sees to it that there is a stream. One that is there is left as it is, so that operators may choose its storage and
/// its copies themselves.
pub(super) async fn ensure(
    context: &Context,
    names: &Names,
    stored: usize,
    copies: usize,
) -> Result<(), Unready> {
    match context.get_stream(&*names.stream).await {
        Ok(stream) => return judge(stream.cached_info(), names),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            GetStreamErrorKind::JetStream(error) => return Err(unready(&error)),
            _ => return Err(silent(context).await),
        },
    }
    match context.create_stream(config(names, stored, copies)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(error, copies)),
    }
}

/// How many copies of the stream there should be.
pub(super) fn copies(session: &Session) -> usize {
    match session.is_clustered() && session.servers_known() >= COPIES {
        true => COPIES,
        false => 1,
    }
}

fn config(names: &Names, stored: usize, copies: usize) -> Config {
    Config {
        name: names.stream.to_string(),
        description: Some("webhooks of Fanwire that are not delivered yet".into()),
        subjects: vec![names.subjects()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        num_replicas: copies,
        max_age: AGE_MAX,
        max_messages_per_subject: i64::try_from(stored).unwrap_or(i64::MAX),
        // The sender is told, and nothing that was accepted is lost.
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        ..Config::default()
    }
}

/// Whether a stream that was there can be used.
fn judge(info: &Info, names: &Names) -> Result<(), Unready> {
    let is_ours = info.config.subjects == [names.subjects()];
    match is_ours && info.config.retention == RetentionPolicy::WorkQueue {
        true => Ok(()),
        false => Err(Unready::Unusable(format!(
            "the stream `{}` in nats is not as it has to be (subjects `{}`, retention workqueue): remove it, or give \
             this cluster another `adapter.prefix`",
            names.stream,
            names.subjects()
        ))),
    }
}

fn refused(error: CreateStreamError, copies: usize) -> Unready {
    const TOO_FEW: [ErrorCode; 3] = [
        ErrorCode::CLUSTER_NO_PEERS,
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED,
        ErrorCode::INSUFFICIENT_RESOURCES,
    ];
    match error.kind() {
        // Servers that have just been started do not know each other yet.
        CreateStreamErrorKind::JetStream(error) if copies > 1 && TOO_FEW.contains(&error.error_code()) => {
            Unready::Away(format!(
                "the servers of nats cannot keep {copies} copies ({error}); if it stays so, make the stream by hand"
            ))
        }
        CreateStreamErrorKind::JetStream(error) => unready(&error),
        _ => Unready::Away(format!("the stream cannot be made: {error}")),
    }
}

/// What an answer of JetStream means.
fn unready(error: &async_nats::jetstream::Error) -> Unready {
    match error.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Unready::Unusable(NO_JETSTREAM.to_owned())
        }
        // A cluster of servers is looking for its leader.
        ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::CLUSTER_NOT_LEADER
        | ErrorCode::CLUSTER_NOT_ACTIVE
        | ErrorCode::CLUSTER_INCOMPLETE
        | ErrorCode::STREAM_OFFLINE => Unready::Away(error.to_string()),
        _ => Unready::Unusable(format!(
            "nats does not let the queue of webhooks be kept: {error}"
        )),
    }
}

/// Why there was no answer at all: nobody is there to give one, or it is late.
async fn silent(context: &Context) -> Unready {
    use async_nats::jetstream::response::Response;
    let asked = context
        .request::<_, _, Response<serde_json::Value>>("INFO", &())
        .await;
    match asked {
        Err(error) if error.kind() == RequestErrorKind::NoResponders => {
            Unready::Unusable(NO_JETSTREAM.to_owned())
        }
        Err(error) => Unready::Away(format!(
            "JetStream does not answer ({error}); the user needs `publish` for `$JS.API.>` and `$JS.ACK.>`"
        )),
        Ok(_) => Unready::Away("JetStream did not answer in time".to_owned()),
    }
}

/// Is JetStream there, for whoever signs in as the section `nats` says? Asked by a person; nothing is stored.
pub async fn checkup(config: &NatsConfig, prefix: &str, report: &mut Report<'_>) {
    let access = match config.access() {
        Ok(access) => access,
        Err((key, text)) => return report.failure(format!("nats.{key}: {text}"), ""),
    };
    let session = match Session::open(&access, prefix).await {
        Ok(session) => session,
        Err(fault) => {
            return report.failure(
                format!("no connection to nats: {fault}"),
                format!("see section `nats`; the user needs `publish` and `subscribe` for `{prefix}.>`"),
            );
        }
    };
    let context = async_nats::jetstream::ContextBuilder::new()
        .timeout(super::START_MAX)
        .build(session.client.clone());
    let names = Names::new(prefix);
    let info = match context.get_stream(&*names.stream).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) => {
            let why = match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    report.good("JetStream is there for webhooks");
                    return report.note(format!(
                        "there is no stream `{}` yet: the first node makes it, with file storage and {} in a cluster \
                         of servers",
                        names.stream,
                        format_args!("{COPIES} copies")
                    ));
                }
                GetStreamErrorKind::JetStream(error) => unready(&error),
                _ => silent(&context).await,
            };
            let (Unready::Away(fault) | Unready::Unusable(fault)) = why;
            return report.failure(format!("webhooks cannot be kept in nats: {fault}"), "");
        }
    };
    if let Err(Unready::Away(fault) | Unready::Unusable(fault)) = judge(&info, &names) {
        return report.failure(fault, "");
    }
    report.good(format!(
        "JetStream is there for webhooks; {} wait in the stream `{}`",
        info.state.messages, names.stream
    ));
    if info.config.storage != StorageType::File {
        report.warning(
            format!(
                "the stream `{}` is kept in memory: a server that restarts loses it",
                names.stream
            ),
            "remove it while no node runs; the first node makes one with file storage",
        );
    }
    if session.is_clustered() && info.config.num_replicas < COPIES {
        report.warning(
            format!(
                "the stream `{}` has {} of {COPIES} copies: it is away while its server is",
                names.stream, info.config.num_replicas
            ),
            format!("nats stream edit {} --replicas {COPIES}", names.stream),
        );
    }
}
