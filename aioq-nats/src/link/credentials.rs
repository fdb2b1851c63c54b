//! Authentication: [`Credentials`].

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use aioq::{Error, ErrorKind, Result};
use async_nats::Auth;
use nkeys::KeyPair;

/// Credentials for each connect. Files are read each time, because they may be renewed while the
/// program runs.
#[derive(Default)]
pub(crate) struct Credentials {
    pub(crate) user: Option<(String, String)>,
    pub(crate) token: Option<String>,
    pub(crate) creds: Option<PathBuf>,
    pub(crate) nkey: Option<PathBuf>,
    /// True if unreadable files were logged since the last success.
    pub(super) failure_logged: AtomicBool,
}

impl Credentials {
    /// Description for messages: file names, never contents.
    pub(crate) fn describe(&self) -> String {
        match self.creds.as_ref().or(self.nkey.as_ref()) {
            Some(path) => format!("the credentials in `{}`", path.display()),
            None => "these credentials".to_owned(),
        }
    }

    /// Answers a server's `nonce`.
    ///
    /// # Errors
    /// `Config` for a file that cannot be read; the message names it.
    pub(crate) async fn prove(&self, nonce: &[u8]) -> Result<Auth> {
        let mut auth = Auth::new();
        if let Some((user, password)) = &self.user {
            (auth.username, auth.password) = (Some(user.clone()), Some(password.clone()));
        }
        auth.token.clone_from(&self.token);
        if let Some(path) = &self.creds {
            let text = read(path, "credentials").await?;
            let (jwt, seed) = parse_creds(&text).ok_or_else(|| not_credentials(path))?;
            auth.signature =
                Some(sign(seed, nonce).map_err(|error| not_credentials(path).with_source(error))?.1);
            auth.jwt = Some(jwt.to_owned());
        }
        if let Some(path) = &self.nkey {
            let text = read(path, "nkey").await?;
            let (public, signature) =
                sign(find_seed(&text, path)?, nonce).map_err(|error| not_a_seed(path).with_source(error))?;
            (auth.nkey, auth.signature) = (Some(public), Some(signature));
        }
        Ok(auth)
    }

    /// Like [`prove`](Self::prove), for a reconnect: logs the first of consecutive failures.
    pub(crate) async fn prove_again(&self, nonce: &[u8]) -> Result<Auth> {
        let proved = self.prove(nonce).await;
        match &proved {
            Ok(_) => self.failure_logged.store(false, Ordering::Relaxed),
            Err(error) if !self.failure_logged.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "cannot read the credentials to reconnect to NATS, retrying");
            }
            Err(_) => {}
        }
        proved
    }
}

/// Signs `nonce`: the public key and the signature.
fn sign(seed: &str, nonce: &[u8]) -> Result<(String, Vec<u8>), nkeys::error::Error> {
    let keys = KeyPair::from_seed(seed)?;
    Ok((keys.public_key(), keys.sign(nonce)?))
}

fn not_credentials(path: &Path) -> Error {
    Error::new(ErrorKind::Config, format!("`{}` is not a NATS credentials file", path.display()))
}

fn not_a_seed(path: &Path) -> Error {
    let message = format!("`{}` holds no user nkey seed (a line that starts with SU)", path.display());
    Error::new(ErrorKind::Config, message)
}

/// Reads a file of credentials or certificates.
pub(crate) async fn read(path: &Path, what: &str) -> Result<String> {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await;
    let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(|error| {
        let message = format!("cannot read the {what} file `{}`", path.display());
        Error::new(ErrorKind::Config, message).with_source(error)
    })
}

/// JWT and seed in a credentials file: the first two lines that stand between lines of dashes.
fn parse_creds(text: &str) -> Option<(&str, &str)> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_rule = |line: &str| line.starts_with("---");
    let mut framed = lines.windows(3).filter_map(|lines| match lines {
        [before, line, after] => (is_rule(before) && !is_rule(line) && is_rule(after)).then_some(*line),
        _ => None,
    });
    Some((framed.next()?, framed.next()?))
}

/// Seed in an nkey file: the line `SU...`.
fn find_seed<'a>(text: &'a str, path: &Path) -> Result<&'a str> {
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    seed.ok_or_else(|| not_a_seed(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_found_between_comments() {
        let path = Path::new("x.nk");
        assert_eq!(find_seed("# mine\n  SUABC \n", path).unwrap(), "SUABC");
        assert_eq!(find_seed("UABC", path).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn a_credentials_file_has_a_jwt_and_a_seed() {
        let text = "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\
                    keep it secret\n\n-----BEGIN USER NKEY SEED-----\r\nSUABC\r\n------END USER NKEY SEED------\n";
        assert_eq!(parse_creds(text), Some(("eyJ0", "SUABC")));
        // A file that is still being written.
        assert_eq!(parse_creds(&text[..60]), None);
        assert_eq!(parse_creds(""), None);
    }
}
