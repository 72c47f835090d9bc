//! Explores all worlds, larger than tests do: `cargo xtask prove [--deep]`.

#![expect(
    clippy::print_stdout,
    reason = "a proof is told to the person who asked for it"
)]

use std::process::ExitCode;
use std::time::Instant;

use distci_proof::Defect;
use distci_proof::prove::{find, prove};
use distci_proof::watch;
use distci_proof::worlds::{self, Size};

fn main() -> ExitCode {
    let deep = std::env::args().any(|word| word == "--deep");
    let size = if deep { Size::Deep } else { Size::Large };
    let holds = explore(size) & watch_over(size) & plant();
    println!(
        "{}",
        if holds {
            "Every law holds, and every planted defect was found."
        } else {
            "The protocol is BROKEN: see above."
        }
    );
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Explores each world; whether every law holds.
fn explore(size: Size) -> bool {
    let mut holds = true;
    for world in worlds::all(size) {
        let begun = Instant::now();
        match prove(&world) {
            Ok(proved) => println!("{proved}; {:.0?}", begun.elapsed()),
            Err(broken) => {
                holds = false;
                println!("{broken}");
            }
        }
    }
    holds
}

/// Explores the watch over claims; whether its law holds.
fn watch_over(size: Size) -> bool {
    let mut holds = true;
    for watching in watch::all(size) {
        let begun = Instant::now();
        match watch::prove(&watching) {
            Ok(proved) => println!("{proved}; {:.0?}", begun.elapsed()),
            Err(broken) => {
                holds = false;
                println!("{broken}");
            }
        }
    }
    holds
}

/// Looks for each planted defect in the smallest worlds; whether each is found.
fn plant() -> bool {
    let mut all = true;
    let worlds = worlds::all(Size::Small);
    for defect in Defect::ALL {
        let found = worlds.iter().filter_map(|world| find(defect, world));
        let nearest = found.min_by_key(|broken| broken.way.len());
        all &= nearest.is_some();
        let told = nearest.map_or("NOT FOUND".to_owned(), |it| {
            format!("{} steps in {:?}: {}", it.way.len(), it.name, it.law)
        });
        println!("planted {defect:?}: {told}");
    }
    for (name, rules) in watch::PLANTED {
        let found = watch::prove(&watch::small(rules)).err();
        all &= found.is_some();
        let told = found.map_or("NOT FOUND".to_owned(), |it| {
            format!("{} steps: {}", it.way.len(), it.law)
        });
        println!("planted {name}: {told}");
    }
    all
}
