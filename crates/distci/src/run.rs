//! From the command line to an exit code.
//!
//! Owns the choice of the runtime, the logs, and the one place where an error is shown.

use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::exit::Exit;
use crate::out::Out;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::of_process();
    start_logs(&cli.command, out.talk_paint().is_on());
    // The other commands find their frontend by the connection; these are one, or go on for ever.
    let asks = !is_daemon(&cli.command)
        && !matches!(
            cli.command,
            Command::Exec(_) | Command::Fsck(_) | Command::Migrate(_)
        );
    let connection = cli.connection.clone();
    let ended = runtime(&cli.command).and_then(|runtime| {
        let ended = runtime.block_on(dispatch(cli, &mut out));
        // What still blocks a thread is nobody's: all work was awaited above.
        runtime.shutdown_background();
        ended
    });
    let exit = ended.unwrap_or_else(|error| {
        let exit = Exit::of_error(&error);
        if exit != Exit::Unheard {
            // Nobody is left to hear of trouble with standard error itself.
            drop(out.say(format_args!("error: {error:#}")));
            if let Some(advice) = connection.advice(&error).filter(|_| asks) {
                drop(out.say(format_args!("  {advice}")));
            }
        }
        exit
    });
    exit.into()
}

/// Daemons talk of what they do; commands only of trouble.
fn start_logs(command: &Command, colours: bool) {
    let level = match command {
        // Whoever opens a cluster is told what is waited for, and no more.
        Command::Fsck(_) | Command::Migrate(_) => "distci=info",
        command if is_daemon(command) => "info",
        _ => "warn",
    };
    let filter = EnvFilter::builder()
        .with_env_var("DISTCI_LOG")
        .with_default_directive(level.parse().unwrap_or_default())
        .from_env_lossy();
    // The client of ZooKeeper tells of every session what the store tells in our own words.
    let quiet = "zookeeper_client=warn".parse();
    let filter = match quiet {
        Ok(quiet) if std::env::var_os("DISTCI_LOG").is_none() => filter.add_directive(quiet),
        Ok(_) | Err(_) => filter,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
}

fn is_daemon(command: &Command) -> bool {
    matches!(
        command,
        Command::Standalone(_) | Command::Frontend(_) | Command::Worker(_) | Command::Pool(_)
    )
}

/// Commands wait for the network only, and need no second thread for it.
fn runtime(command: &Command) -> Result<Runtime> {
    let mut builder = match command {
        Command::Exec(_) | Command::Standalone(_) | Command::Frontend(_) => {
            Builder::new_multi_thread()
        }
        Command::Worker(_) | Command::Pool(_) => {
            let mut builder = Builder::new_multi_thread();
            // Beats must go out while one thread packs a workspace; more would cost memory.
            builder.worker_threads(2);
            builder
        }
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build().context("no runtime")
}

async fn dispatch(cli: Cli, out: &mut Out) -> Result<Exit> {
    let connection = &cli.connection;
    match cli.command {
        Command::Exec(arguments) => crate::exec::run(connection, arguments, out).await,
        Command::Standalone(arguments) => crate::standalone::run(connection, arguments).await,
        Command::Frontend(arguments) => crate::frontend::run(connection, arguments, out).await,
        Command::Worker(arguments) => crate::worker::run(connection, arguments).await,
        Command::Pool(arguments) => crate::pool::run(connection, arguments, out).await,
        Command::Fsck(arguments) => crate::fsck::run(connection, &arguments, out).await,
        Command::Migrate(arguments) => crate::migrate::run(&arguments, out).await,
        Command::Drill(arguments) => crate::drill::run(connection, arguments, out).await,
        Command::Image(deed) => crate::image::run(deed, out).await,
        Command::Events(arguments) => crate::events::run(connection, &arguments, out).await,
        Command::Open(arguments) => crate::open::run(connection, &arguments, out).await,
        Command::Grep(arguments) => crate::grep::run(connection, &arguments, out).await,
        Command::Jobs(arguments) => crate::jobs::run(connection, &arguments, out).await,
        Command::Polls(arguments) => crate::polls::run(connection, &arguments, out).await,
        Command::Job(deed) => crate::job::run(connection, deed, out).await,
        Command::Lint(arguments) => crate::lint::run(&arguments, out),
        Command::Trigger(arguments) => crate::trigger::run(connection, arguments, out).await,
        Command::Builds(arguments) => crate::builds::run(connection, &arguments, out).await,
        Command::Show(arguments) => crate::show::run(connection, &arguments, out).await,
        Command::Why(arguments) => crate::why::run(connection, &arguments, out).await,
        Command::Logs(arguments) => crate::logs::run(connection, arguments, out).await,
        Command::Cancel(arguments) => crate::cancel::run(connection, &arguments, out).await,
        Command::Rerun(arguments) => crate::rerun::run(connection, arguments, out).await,
        Command::Approve(arguments) => crate::answer::run(connection, arguments, true, out).await,
        Command::Reject(arguments) => crate::answer::run(connection, arguments, false, out).await,
        Command::Artifacts(arguments) => crate::artifacts::run(connection, &arguments, out).await,
        Command::Tests(arguments) => crate::test_reports::run(connection, &arguments, out).await,
        Command::Queue(arguments) => crate::queue::run(connection, &arguments, out).await,
        Command::Locks(arguments) => crate::locks::run(connection, &arguments, out).await,
        Command::Cluster(arguments) => crate::fares::run(connection, &arguments, out).await,
        Command::Frontends(arguments) => crate::frontends::run(connection, &arguments, out).await,
        Command::Workers(arguments) => crate::workers::run(connection, &arguments, out).await,
        Command::Webhook(deed) => crate::webhook::run(connection, deed, out).await,
        Command::Schedule(arguments) => crate::schedule::run(connection, &arguments, out).await,
        Command::Schema => crate::schema::run(out),
        Command::Completions(arguments) => crate::completions::run(&arguments, out),
    }
}
