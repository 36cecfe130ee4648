//! Addresses in which a password may stand: how their parts are told apart, and how they are shown without it.
//!
//! Not here: what schemes, paths and options mean. Each kind of address has a reader of its own.

use percent_encoding::percent_decode_str;

use super::{REDACTED, Secret};

/// Who signs in, as it stands before the `@` of an address.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Userinfo {
    /// Who it is; none where there is only a password, or nobody.
    pub name: Option<String>,
    /// Empty if there is none.
    pub password: Secret,
}

impl Userinfo {
    /// Reads the user of an address without its scheme; what is left is behind it.
    ///
    /// A password may hold anything but `@`, which a careless one holds all the same. So the last one counts.
    ///
    /// # Errors
    /// As [`decoded`].
    pub fn split(address: &str) -> Result<(Userinfo, &str), String> {
        let Some((user, rest)) = address.rsplit_once('@') else {
            return Ok((Userinfo::default(), address));
        };
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let user = Userinfo {
            name: Some(decoded(name)?).filter(|name| !name.is_empty()),
            password: Secret::new(&decoded(password)?),
        };
        Ok((user, rest))
    }

    /// The whole address, of which this is the user, without the password.
    pub fn hide_password(&self, address: &str) -> String {
        match (address.split_once("://"), address.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) if !self.password.is_empty() => {
                let name = self.name.as_deref().unwrap_or_default();
                format!("{scheme}://{name}:{REDACTED}@{rest}")
            }
            _ => address.to_owned(),
        }
    }
}

/// A part of an address, with its %-escapes undone.
///
/// # Errors
/// What they stand for is no text. For a person, and holds nothing of it.
pub fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(String::from)
        .map_err(|_| "holds a %-escape that is no UTF-8".into())
}

/// A host, an IPv6 address without its brackets, and the port behind it, if there is one.
///
/// # Errors
/// What is wrong about them, for a person.
pub fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or("has a `[` without its `]`")?;
            (
                host,
                (!rest.is_empty()).then(|| rest.strip_prefix(':').unwrap_or_default()),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(|port| {
        let port = port.parse().ok().filter(|port| *port > 0);
        port.ok_or("has a port that is no number from 1 to 65535")
    });
    Ok((host.to_owned(), port.transpose()?))
}

/// Has a type that is written as a text shown as what its method `shown` returns, wherever it is printed, and described
/// as a text.
macro_rules! shown_as_text {
    ($type:ident) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.shown())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.shown())
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                String::json_schema(generator)
            }
        }
    };
}
pub(crate) use shown_as_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_ends_at_the_last_at() {
        for (address, name, password, rest) in [
            ("a/d", None, "", "a/d"),
            ("u@a/d", Some("u"), "", "a/d"),
            ("u:p@a/d", Some("u"), "p", "a/d"),
            (":p@a", None, "p", "a"),
            (":p@q/r?s:t@a", None, "p@q/r?s:t", "a"),
            ("u%3A:p%40%2f@a", Some("u:"), "p@/", "a"),
        ] {
            let (user, left) = Userinfo::split(address).expect(address);
            let found = (user.name.as_deref(), user.password.expose(), left);
            assert_eq!(found, (name, password, rest), "{address}");
        }
        assert!(Userinfo::split("u:%ff@a").is_err());
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (address, shown) in [
            ("redis://a:1/0", "redis://a:1/0"),
            ("redis://user@a", "redis://user@a"),
            ("redis://user:hunter2@a:1/0", "redis://user:[redacted]@a:1/0"),
            ("mysql://:hunt@er2@a/d?b", "mysql://:[redacted]@a/d?b"),
        ] {
            let (_, behind) = address.split_once("://").expect("a scheme");
            let (user, _) = Userinfo::split(behind).expect(address);
            assert_eq!(user.hide_password(address), shown);
        }
    }

    #[test]
    fn a_port_stands_behind_its_host() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a:1", "a", Some(1)),
            ("", "", None),
            ("[::1]", "::1", None),
            ("[::1]:65535", "::1", Some(65_535)),
        ] {
            assert_eq!(host_and_port(text), Ok((host.into(), port)), "{text}");
        }
        for wrong in ["a:", "a:b", "a:0", "a:65536", "[::1", "[::1]:", "[::1]7", "::1"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }
}
