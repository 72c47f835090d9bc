//! What `distci` is to a worker, as a program of its own for tests: `supervise` is the supervisor,
//! `work FRONTEND DIRECTORY` a worker.

use std::collections::BTreeMap;
use std::process::ExitCode;

use distci_client::Client;
use distci_isolation::Groups;
use distci_isolation::machine;
use distci_model::capability::Kind;
use distci_worker::Settings;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [_, "supervise", ..] => distci_isolation::supervisor::main(),
        [program, "work", frontend, directory] => match work(program, frontend, directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        _ => ExitCode::from(2),
    }
}

fn work(program: &str, frontend: &str, directory: &str) -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings {
        id: "w 0123abcd".parse()?,
        kinds: Kind::of_workers().collect(),
        labels: Vec::new(),
        slots: 4,
        once: false,
        idle: None,
        directory: directory.into(),
        machine: machine::Settings {
            supervisor: vec![program.into(), "supervise".into()],
            agent: ("/nonexistent".into(), String::new()),
            scratch: "/nonexistent".into(),
            groups: Groups::find(),
            images: "/nonexistent".into(),
            drivers: Vec::new(),
            default_image: None,
        },
        git_credentials: None,
        forges: BTreeMap::new(),
    };
    let client = Client::new(vec![frontend.to_owned()], None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(distci_worker::run(
        settings,
        client,
        CancellationToken::new(),
    ))?;
    Ok(())
}
