//! Publishes, as the tricks say.

use std::future::pending;
use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Manner, Out, Shared, State, Trick, header};

pub(super) async fn answer(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    head: &[String],
    shared: &Shared,
) -> io::Result<()> {
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    let status = if shared.manner.is_unauthorized {
        401
    } else {
        let Some(status) = publish(&body, shared) else {
            return pending().await;
        };
        status
    };
    let body = if status == 200 { "{}" } else { "not today" };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} So\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await
}

/// The answer is the status; none if there is to be no answer.
fn publish(body: &[u8], shared: &Shared) -> Option<u16> {
    let event: Value = serde_json::from_slice(body).expect("a publication is JSON");
    let channel = event["channels"][0].as_str().expect("it names its channel");
    let data = event["data"].as_str().expect("its data is text");
    let mut status = Some(200);
    shared.note(|state| {
        let number = state.seen.publications;
        state.seen.publications += 1;
        let mut is_delivered = true;
        for trick in &shared.manner.tricks {
            match *trick {
                Trick::Answer {
                    at,
                    status: other,
                    is_delivered: also,
                } if at == number => {
                    status = Some(other);
                    is_delivered = also;
                }
                Trick::Hang { at } if at == number => {
                    status = None;
                    is_delivered = false;
                }
                _ => {}
            }
        }
        if is_delivered {
            deliver(number, channel, data, &shared.manner, state);
        }
    });
    status
}

fn deliver(number: usize, channel: &str, data: &str, manner: &Manner, state: &mut State) {
    let text = if manner.is_spaced {
        format!(r#"{{ "data": "{data}", "channel" : "{channel}",  "event":"load" }}"#)
    } else {
        format!(r#"{{"event":"load","channel":"{channel}","data":"{data}"}}"#)
    };
    let mut sent = 0;
    for (index, subscriber) in state.subscribers.iter_mut().enumerate() {
        if subscriber.channel != channel {
            continue;
        }
        let (mut times, mut is_held, mut is_last) = (1, false, false);
        // A socket that is gone takes nothing.
        let say = |out| drop(subscriber.out.try_send(out));
        for trick in &manner.tricks {
            match *trick {
                Trick::Drop { at, to } if (at, to) == (number, index) => times = 0,
                Trick::Repeat { at, to } if (at, to) == (number, index) => times = 2,
                Trick::Hold { at, to } if (at, to) == (number, index) => is_held = true,
                Trick::Delay { at, to, ms } if (at, to) == (number, index) => {
                    say(Out::Wait(Duration::from_millis(ms)));
                }
                Trick::Counterfeit { at, to } if (at, to) == (number, index) => {
                    say(Out::Text(counterfeit(&text)));
                }
                Trick::Close { at, to } if (at, to) == (number, index) => is_last = true,
                _ => {}
            }
        }
        if is_held {
            subscriber.held.push((field(data, 20), text.clone()));
            continue;
        }
        for _ in 0..times {
            say(Out::Text(text.clone()));
        }
        sent += times;
        let before = field(data, 29);
        while let Some(place) = subscriber
            .held
            .iter()
            .position(|(sequence, _)| *sequence < before)
        {
            let (_, late) = subscriber.held.remove(place);
            let _ = subscriber.out.try_send(Out::Text(late));
            sent += 1;
        }
        if is_last {
            let _ = subscriber.out.try_send(Out::Close);
            subscriber.channel.clear();
        }
    }
    state.seen.sent += sent;
}

/// A number of eight hexadecimal digits in the stamp: its sequence is at 20, and at 29 the first sequence that may still
/// come after it.
fn field(data: &str, at: usize) -> u32 {
    u32::from_str_radix(&data[at..at + 8], 16).expect("data begins with a stamp")
}

/// The same as if another run had made it.
fn counterfeit(text: &str) -> String {
    let at = text.find("@@").expect("there is a stamp") + 2;
    let digit = if text[at..].starts_with('0') { "1" } else { "0" };
    format!("{}{digit}{}", &text[..at], &text[at + 1..])
}
