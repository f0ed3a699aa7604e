//! The manager as a program: options, signals, exit code. The runtime is the caller's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use common::error::Chain;
use common::shutdown::Shutdown;
use common::telemetry;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::ManagerConfig;

/// Options of `paprika manager`.
#[derive(Debug, Clone, Args)]
pub struct ManagerArgs {
    /// Configuration file; without it, defaults and the options below.
    #[arg(long, value_name = "FILE", env = "PAPRIKA_MANAGER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder with everything the manager keeps.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Address of the HTTPS port.
    #[arg(long, value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    /// Address of the port for agents.
    #[arg(long, value_name = "ADDR")]
    pub link: Option<SocketAddr>,
}

impl ManagerArgs {
    /// Reads the configuration and lets the options win.
    ///
    /// # Errors
    /// When the file cannot be read or is wrong.
    pub fn resolve(&self) -> Result<ManagerConfig, common::config::ConfigError> {
        let mut config = match &self.config {
            Some(path) => ManagerConfig::load(path)?,
            None => ManagerConfig::default(),
        };
        if let Some(dir) = &self.dir {
            config.dir.clone_from(dir);
        }
        if let Some(api) = self.api {
            config.api.listen = api;
        }
        if let Some(link) = self.link {
            config.link.listen = link;
        }
        Ok(config)
    }
}

/// Runs the manager until a signal stops it. Call it inside a multi-thread runtime.
pub async fn daemon(args: ManagerArgs) -> ExitCode {
    let config = match args.resolve() {
        Ok(config) => config,
        Err(error) => {
            telemetry::init(telemetry::LogLevel::Info);
            tracing::error!(error = %Chain(&error), "the configuration is not usable");
            return ExitCode::from(2);
        }
    };
    telemetry::init(config.log);
    raise_descriptors();
    common::cores::forbid();
    let shutdown = Shutdown::new();
    // Nobody waits to hear that it is ready: systemd is told, and the log says it.
    let (ready, _) = oneshot::channel();
    let running = crate::app::run(config, shutdown.clone(), ready);
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = stop_signal() => {
            shutdown.request();
            running.await
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "the manager did not run to its end");
            ExitCode::FAILURE
        }
    }
}

/// Waits for SIGTERM or SIGINT. SIGHUP changes nothing: the configuration is read at start.
async fn stop_signal() {
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals else {
        tracing::error!("signals cannot be heard; stop the manager through its service manager");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => tracing::info!("SIGHUP changes nothing; restart the manager to read its configuration again"),
        }
    }
}

/// A session is a descriptor: takes as many as this user may have.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
