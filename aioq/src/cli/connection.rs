//! Connection settings, common to all commands.

use std::path::PathBuf;

use crate::backend::Settings;
use crate::error::{Error, ErrorKind, Result};

/// Connection settings. A flag overrides its environment variable, which overrides the code.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
#[non_exhaustive]
pub struct ConnectionArgs {
    /// NATS servers as nats://host:port, separated by commas
    #[arg(long, global = true, env = "AIOQ_NATS", value_name = "URL", hide_env_values = true)]
    pub nats: Option<String>,
    /// Run in this process's memory, without a server
    #[arg(long, global = true)]
    pub memory: bool,
    /// Prefix of all names on the server, to keep programs apart
    #[arg(long, global = true, env = "AIOQ_PREFIX", value_name = "NAME")]
    pub prefix: Option<String>,
    /// A credentials file
    #[arg(long, global = true, env = "AIOQ_CREDS", value_name = "FILE", hide_env_values = true)]
    pub creds: Option<PathBuf>,
    /// An nkey seed file
    #[arg(long, global = true, env = "AIOQ_NKEY", value_name = "FILE", hide_env_values = true)]
    pub nkey: Option<PathBuf>,
    /// Root certificates for TLS
    #[arg(long, global = true, env = "AIOQ_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Format of the logs on standard error; RUST_LOG sets what is logged
    #[arg(long, global = true, env = "AIOQ_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// Format of the logs.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// A JSON object per line
    Json,
}

impl ConnectionArgs {
    /// The settings of these arguments.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        Settings {
            url: if self.memory { Some("memory".to_owned()) } else { self.nats.as_deref().map(with_scheme) },
            prefix: self.prefix.clone(),
            creds: self.creds.as_ref().map(text),
            nkey: self.nkey.as_ref().map(text),
            tls_ca: self.tls_ca.as_ref().map(text),
            at_once: false,
        }
    }

    pub(super) fn log_format(&self) -> LogFormat {
        self.log_format
    }
}

/// Refuses `--memory` together with `--nats`. A flag wins over an environment variable.
pub(super) fn check(matches: &clap::ArgMatches) -> Result<()> {
    let said = |flag: &str| matches.value_source(flag) == Some(clap::parser::ValueSource::CommandLine);
    if said("memory") && said("nats") {
        return Err(Error::new(ErrorKind::Config, "`--memory` and `--nats` cannot be used together"));
    }
    Ok(())
}

/// Adds the scheme to an address such as `host:4222`.
fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("nats://{url}") }
}
