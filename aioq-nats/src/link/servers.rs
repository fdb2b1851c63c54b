//! Servers to connect to, parsed from the user's URL: [`Servers`].

use aioq::{Error, ErrorKind, Result};
use async_nats::ServerAddr;

/// Servers of one URL, or of several URLs separated by commas.
///
/// The text is cut at the schemes (`nats://`, `tls://`). Behind a scheme, everything up to the last
/// `@` is credentials, commas included. Behind the `@`, commas separate hosts. So no part of a
/// password is ever taken for a host and shown.
pub(crate) struct Servers {
    /// Addresses without credentials, which the client library would log.
    pub(crate) addresses: Vec<ServerAddr>,
    pub(crate) login: Option<Login>,
    /// True if any URL requires TLS. The servers belong to one cluster, and the client may move to
    /// any of them, so the requirement holds for all.
    pub(crate) requires_tls: bool,
}

/// Credentials in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    User(String, String),
    Token(String),
}

impl Servers {
    pub(crate) fn parse(list: &str) -> Result<Self> {
        let mut servers = Self { addresses: Vec::new(), login: None, requires_tls: false };
        for group in groups(list) {
            servers.add(&group).map_err(|why| {
                Error::new(
                    ErrorKind::Config,
                    format!("`{}` is not a URL of a NATS server: {why}", address(list)),
                )
            })?;
        }
        if servers.addresses.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the URL of the NATS server is empty"));
        }
        Ok(servers)
    }

    fn add(&mut self, group: &Group<'_>) -> Result<(), String> {
        match group.scheme {
            "nats" => {}
            "tls" => self.requires_tls = true,
            "ws" | "wss" => return Err("aioq does not speak WebSocket, use nats:// or tls://".to_owned()),
            scheme => return Err(format!("`{scheme}://` is unknown, use nats:// or tls://")),
        }
        if let Some(credentials) = group.credentials {
            let login = Login::parse(credentials)?;
            self.login.get_or_insert(login);
        }
        for host in group.hosts() {
            let address: ServerAddr = format!("{}://{host}", group.scheme)
                .parse()
                .map_err(|error: std::io::Error| error.to_string())?;
            self.addresses.push(address);
        }
        Ok(())
    }
}

impl Login {
    /// Parses `user:password`, or a token.
    fn parse(credentials: &str) -> Result<Self, String> {
        if credentials.contains(',') && credentials.contains('@') {
            return Err(
                "write `nats://` before each server that has credentials, and in a password %2C for a comma \
                        and %40 for an at sign"
                    .to_owned(),
            );
        }
        Ok(match credentials.split_once(':') {
            Some((user, password)) => Self::User(percent_decoded(user), percent_decoded(password)),
            None => Self::Token(percent_decoded(credentials)),
        })
    }
}

/// URLs without credentials, for logs and errors.
pub(crate) fn address(list: &str) -> String {
    let shown = groups(list).into_iter().flat_map(|group| {
        let hosts: Vec<_> = group.hosts().map(|host| format!("{}://{host}", group.scheme)).collect();
        hosts
    });
    shown.collect::<Vec<_>>().join(",")
}

/// One scheme and the text up to the next scheme.
struct Group<'a> {
    scheme: &'a str,
    credentials: Option<&'a str>,
    hosts: &'a str,
}

impl<'a> Group<'a> {
    fn parse(text: &'a str) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        let (credentials, hosts) = match rest.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, rest),
        };
        Self { scheme, credentials, hosts }
    }

    fn hosts(&self) -> impl Iterator<Item = &'a str> {
        self.hosts.split(',').map(str::trim).filter(|host| !host.is_empty())
    }
}

fn groups(list: &str) -> Vec<Group<'_>> {
    let mut starts = vec![0];
    starts.extend(list.match_indices(',').map(|(comma, _)| comma + 1).filter(|start| {
        let scheme = list[*start..].trim_start().split_once("://").map(|(scheme, _)| scheme);
        scheme
            .is_some_and(|scheme| !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase()))
    }));
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([list.len()]);
    starts.iter().zip(ends).map(|(start, end)| Group::parse(list[*start..end].trim())).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, password: &str) -> Login {
        Login::User(name.to_owned(), password.to_owned())
    }

    #[test]
    fn no_part_of_a_password_is_shown_or_taken_for_a_host() {
        for (list, shown) in [
            ("nats://ann:secret@a:4222", "nats://a:4222"),
            ("nats://ann:sec,ret@a:4222", "nats://a:4222"),
            ("nats://ann:12,34@a:4222,b", "nats://a:4222,nats://b"),
            ("nats://to,ken@a", "nats://a"),
            ("tls://ann:se/c?r#et@a, nats://t0ken@b,c:1", "tls://a,nats://b,nats://c:1"),
            ("ann:zq@xw,qz@a", "nats://a"),
            ("a,nats://ann:s@b", "nats://a,nats://b"),
            ("a:4222", "nats://a:4222"),
        ] {
            assert_eq!(address(list), shown, "{list}");
            if let Err(error) = Servers::parse(list) {
                let text = error.to_string();
                assert!(
                    ["secret", "sec", "12", "34", "ken", "zq", "xw"].iter().all(|part| !text.contains(part)),
                    "{text}"
                );
            }
        }
        assert_eq!(Servers::parse("ann:zq@xw,qz@a").err().map(|error| error.kind()), Some(ErrorKind::Config));
    }

    #[test]
    fn credentials_in_a_url_are_read_as_they_were_meant() {
        for (list, login, count) in [
            ("nats://a%40b:p%2Fw%25@h:1", Some(user("a@b", "p/w%")), 1),
            ("nats://ann:sec,ret@h:4222,i", Some(user("ann", "sec,ret")), 2),
            ("nats://ann:p/w@h", Some(user("ann", "p/w")), 1),
            ("nats://t0ken@h", Some(Login::Token("t0ken".to_owned())), 1),
            ("nats://h,nats://ann:x@i", Some(user("ann", "x")), 2),
            ("nats://h", None, 1),
        ] {
            let servers = Servers::parse(list).unwrap();
            assert_eq!((servers.login, servers.addresses.len()), (login, count), "{list}");
            assert!(servers.addresses.iter().all(|address| !address.has_user_pass()), "{list}");
        }
        assert_eq!(percent_decoded("100%"), "100%");
    }

    #[test]
    fn tls_is_required_of_all_servers_if_one_url_says_so() {
        let tls = |list: &str| {
            Servers::parse(list).map(|servers| servers.requires_tls).map_err(|error| error.kind())
        };
        assert_eq!(tls("nats://a,nats://b"), Ok(false));
        for list in ["tls://a", "nats://a,tls://b", "a, tls://b"] {
            assert_eq!(tls(list), Ok(true), "{list}");
        }
        for list in ["wss://a", "ws://a", "nats://a,wss://b", "http://a", "", " , ", "nats://a b"] {
            assert_eq!(tls(list), Err(ErrorKind::Config), "{list}");
        }
    }
}
