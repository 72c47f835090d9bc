//! The crate against real servers.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use distci_components::{
    Ceph, CephPlan, Daemons, Mode, ObjectStore, ZooKeeper, ZooKeeperPlan, shared,
};
use tempfile::tempdir;

fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_mins(1);
    while !holds() {
        anyhow::ensure!(Instant::now() < end, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The processes whose command line names a folder.
fn processes_naming(dir: &Path) -> Result<Vec<String>> {
    let dir = dir.to_str().context("a plain path")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let command = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(dir) {
            found.push(command);
        }
    }
    Ok(found)
}

#[test]
fn an_ensemble_survives_its_leader() {
    let dir = tempdir().unwrap();
    let plan = ZooKeeperPlan {
        servers: 3,
        ..ZooKeeperPlan::default()
    };
    let ensemble = ZooKeeper::start(dir.path(), &plan).unwrap();
    assert_eq!(ensemble.connect().split(',').count(), 3);

    let leader = ensemble.leader().unwrap();
    let epoch = ensemble.zxid(leader).unwrap() >> 32;
    ensemble.kill(leader).unwrap();
    assert!(ensemble.pid(leader).is_err());
    assert!(ensemble.mode(leader).is_err());
    eventually("another leader", || {
        ensemble.leader().is_ok_and(|other| other != leader)
    })
    .unwrap();

    ensemble.restart(leader).unwrap();
    assert_eq!(ensemble.mode(leader).unwrap(), Mode::Follower);
    // The upper half of a zxid counts the leaders.
    eventually("a new epoch", || {
        ensemble.zxid(leader).is_ok_and(|zxid| zxid >> 32 > epoch)
    })
    .unwrap();
}

#[test]
fn a_paused_leader_loses_the_lead() {
    let dir = tempdir().unwrap();
    let plan = ZooKeeperPlan {
        servers: 3,
        tick_ms: 200,
        ..ZooKeeperPlan::default()
    };
    let ensemble = ZooKeeper::start(dir.path(), &plan).unwrap();
    let leader = ensemble.leader().unwrap();
    ensemble.pause(leader).unwrap();
    assert!(ensemble.pid(leader).is_ok(), "paused, not dead");
    let others = || (0..3).filter(|&server| server != leader);
    let leads = |server| matches!(ensemble.mode(server), Ok(Mode::Leader));
    eventually("another leader", || others().any(leads)).unwrap();
    ensemble.resume(leader).unwrap();
    eventually("the old one follows", || {
        matches!(ensemble.mode(leader), Ok(Mode::Follower))
    })
    .unwrap();
}

#[test]
fn a_dropped_value_leaves_no_process() {
    let dir = tempdir().unwrap();
    let server = ZooKeeper::start(dir.path(), &ZooKeeperPlan::default()).unwrap();
    assert_eq!(processes_naming(server.dir()).unwrap().len(), 1);
    let folder = server.dir().to_owned();
    drop(server);
    assert_eq!(processes_naming(&folder).unwrap(), Vec::<String>::new());
}

#[test]
fn what_was_left_is_found_again() {
    let dir = tempdir().unwrap();
    let started = ZooKeeper::start(dir.path(), &ZooKeeperPlan::default()).unwrap();
    let (connect, pid) = (started.connect(), started.pid(0).unwrap());
    started.leave();

    let found = ZooKeeper::open(dir.path()).unwrap();
    assert_eq!((found.connect(), found.pid(0).unwrap()), (connect, pid));
    drop(found);
    let found = ZooKeeper::open(dir.path()).unwrap();
    assert_eq!(found.pid(0).unwrap(), pid, "an opened value does not own");
    found.stop().unwrap();
    assert!(ZooKeeper::open(dir.path()).unwrap().pid(0).is_err());

    let again = ZooKeeper::ensure(dir.path(), &ZooKeeperPlan::default()).unwrap();
    assert_eq!(again.mode(0).unwrap(), Mode::Standalone);
    let more = ZooKeeperPlan {
        servers: 3,
        ..ZooKeeperPlan::default()
    };
    assert!(ZooKeeper::ensure(dir.path(), &more).is_err());
    again.stop().unwrap();
}

#[test]
fn a_process_that_becomes_another_program_is_still_there() {
    let dir = tempdir().unwrap();
    let daemon = Daemons::in_folder(dir.path()).unwrap().get("restless");
    let script = dir.path().join("again.sh");
    // Thousands of times a second, and with an empty command line in between.
    std::fs::write(&script, r#"exec sh "$0""#).unwrap();
    let command = ["sh".to_owned(), script.display().to_string()];
    daemon.start(&command).unwrap();
    for round in 0..20_000 {
        assert!(daemon.pid().is_some(), "not seen in round {round}");
    }
    daemon.kill().unwrap();
}

#[test]
fn a_process_of_somebody_else_is_never_touched() {
    let dir = tempdir().unwrap();
    let daemons = Daemons::in_folder(dir.path()).unwrap();
    let daemon = daemons.get("sleeper");
    let word = dir.path().join("a-file").display().to_string();
    let sleep = ["sh", "-c", "sleep 600; true", &word].map(str::to_owned);
    daemon.start(&sleep).unwrap();
    daemon.kill().unwrap();

    // The pid now belongs to another.
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(dir.path().join("run/sleeper.pid"), other.id().to_string()).unwrap();
    assert_eq!(daemon.pid(), None);
    daemons.kill_all().unwrap();
    assert!(other.try_wait().unwrap().is_none(), "it was killed");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_taken_port_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = tempdir().unwrap();
    let plan = ZooKeeperPlan {
        base_port: Some(port),
        ..ZooKeeperPlan::default()
    };
    let refused = ZooKeeper::start(dir.path(), &plan).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(&format!("port {port} is taken")),
        "{refused}"
    );
}

#[test]
fn a_server_that_ends_tells_why() {
    let dir = tempdir().unwrap();
    let extra_config = vec!["syncLimit=many".to_owned()];
    let plan = ZooKeeperPlan {
        extra_config,
        ..ZooKeeperPlan::default()
    };
    let refused = ZooKeeper::start(dir.path(), &plan).unwrap_err();
    assert!(format!("{refused:#}").contains("many"), "{refused:#}");
    assert_eq!(processes_naming(dir.path()).unwrap(), Vec::<String>::new());
}

#[test]
fn ceph_survives_one_gateway_and_a_stop() {
    let dir = tempdir().unwrap();
    let ceph = Ceph::start(
        dir.path(),
        &CephPlan {
            gateways: 2,
            ..CephPlan::default()
        },
    )
    .unwrap();
    assert_eq!(ceph.names().unwrap(), ["mon.a", "osd.0", "rgw.1", "rgw.2"]);
    assert_eq!(ceph.s3().endpoints.len(), 2);
    ceph.kill("rgw.1").unwrap();
    assert!(ceph.daemon("rgw.1").unwrap().pid().is_none());
    assert!(ceph.check().is_err(), "one gateway is dead");
    ceph.restart("rgw.1").unwrap();
    ceph.check().unwrap();
    ceph.stop().unwrap();
    assert_eq!(processes_naming(dir.path()).unwrap(), Vec::<String>::new());

    let plan = CephPlan {
        gateways: 2,
        ..CephPlan::default()
    };
    let ceph = Ceph::ensure(dir.path(), &plan).unwrap();
    ceph.stop().unwrap();
}

#[test]
fn three_stores_on_disk_survive_a_power_cut() {
    let dir = tempdir().unwrap();
    let plan = CephPlan {
        osds: 3,
        store: ObjectStore::BlueStore,
        ..CephPlan::default()
    };
    let ceph = Ceph::start(dir.path(), &plan).unwrap();
    let memory = |daemon: &distci_components::Daemon| daemon.memory().unwrap_or_default() > 1 << 20;
    assert!(ceph.daemons().unwrap().iter().all(memory));
    ceph.kill_all().unwrap();
    ceph.restart_all().unwrap();
    // With one of three gone the others serve on.
    ceph.kill("osd.2").unwrap();
    ceph.check().unwrap();
}

#[test]
fn a_shared_server_is_shared() {
    let addresses: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(shared::zookeeper)).collect();
        asked
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap())
            .collect()
    });
    assert!(
        addresses.windows(2).all(|pair| pair[0] == pair[1]),
        "{addresses:?}"
    );
    let ensemble = shared::ensemble().unwrap();
    assert_eq!(ensemble.split(',').count(), 3);
    assert_eq!(shared::ceph().unwrap(), shared::ceph().unwrap());
    assert!(shared::daemons().unwrap().len() >= 8);
}
