//! The driver of containers by LXC.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use distci_isolation::{Ended, Error, Groups, Isolation as _, Lxc, Terms, sweep};
use distci_model::isolation::Network;
use nix::mount::{MsFlags, mount, umount};
use tokio::sync::oneshot;

use crate::image::busybox;
use crate::laws::{Watched, contract};
use crate::powers;
use crate::scene::{Scene, Subject, command, never, run, supervisor};

fn lxc() -> Lxc {
    let groups = Groups::find();
    assert_eq!(groups.trouble(), None);
    Lxc {
        supervisor: supervisor(),
        groups,
    }
}

fn subject() -> Subject {
    Subject {
        isolation: Box::new(lxc()),
        image: Some(busybox()),
        networks: &[Network::None, Network::Host, Network::Private],
        scale: 1,
        many: 200,
    }
}

contract!(subject());

async fn play(script: &str) -> (Ended, String) {
    let subject = subject();
    let (finished, text) = Scene::run(&subject, &subject.terms(), script).await;
    (finished.ended, text)
}

/// What a worker does before it offers the driver.
#[tokio::test(flavor = "multi_thread")]
async fn it_works_here() {
    let folder = tempfile::tempdir().unwrap();
    lxc().probe(&busybox(), folder.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_shell_is_no_good() {
    let folder = tempfile::tempdir().unwrap();
    let image = powers::empty_image(folder.path());
    let tried = lxc().probe(&image, folder.path()).await;
    assert!(matches!(tried, Err(Error::Image { .. })), "{tried:?}");
    powers::assert_says(&tried, "/bin/sh");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_not_for_others() {
    powers::none_to_read_the_environment(&subject()).await;
}

/// A file system of the oldest kind knows no owners but its own.
#[tokio::test(flavor = "multi_thread")]
async fn folders_of_any_file_system_are_shown() {
    let scene = Scene::new();
    let workspace = &scene.site.workspace;
    let nothing = None::<&str>;
    mount(nothing, workspace, Some("ramfs"), MsFlags::empty(), nothing).unwrap();
    fs::write(workspace.join("old"), "kept\n").unwrap();
    let script = "cat old && echo new > new && chmod 600 new old";
    let done = scene.play(&subject(), &subject().terms(), script).await;
    let owner = |name: &str| fs::metadata(workspace.join(name)).unwrap().uid();
    let owners = (owner("old"), owner("new"));
    umount(workspace).unwrap();
    assert_eq!((done.0.ended, done.1.as_str()), (Ended::Exit(0), "kept\n"));
    assert_eq!(owners, (0, 0));
    scene.assert_clean();
}

/// Packages make users and give them files.
#[tokio::test(flavor = "multi_thread")]
async fn a_cell_has_all_users_of_a_distribution() {
    let script = "set -e; echo 'some:x:1000:1000::/:/bin/sh' >> /etc/passwd; \
        touch /etc/mine mine; chown 65533:65533 /etc/mine; chown 1000 mine; \
        su some -c 'id -u; touch /tmp/x; rm /etc/passwd 2>/dev/null || echo refused'; \
        stat -c %u:%g /etc/mine; stat -c %u mine";
    let (ended, text) = play(script).await;
    assert_eq!(text, "1000\nrefused\n65533:65533\n1000\n");
    assert_eq!(ended, Ended::Exit(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_count_on_is_there() {
    let script = "set -e; echo x > /dev/null; head -c 3 /dev/zero | wc -c; \
        echo shared > /dev/shm/x; cat /dev/shm/x; test -c /dev/pts/ptmx; test -c /dev/urandom; \
        hostname; ip -4 -o addr show lo | grep -o 127.0.0.1; test -c /dev/ptmx";
    let (ended, text) = play(script).await;
    assert_eq!(ended, Ended::Exit(0), "{text}");
    assert_eq!(text, "3\nshared\ndistci\n127.0.0.1\n");
}

/// Whoever kills all that it may is not rid of whoever watches it.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_in_a_cell_outlives_its_command() {
    let script =
        "kill -9 -1 2>/dev/null; setsid sleep 1000 & trap '' TERM; kill -9 1; kill 1; exit 3";
    assert_eq!(play(script).await, (Ended::Exit(3), String::new()));
}

/// A cell that begins the machine anew would run its command again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cell_cannot_begin_anew() {
    let script = "echo once; reboot -f 2>/dev/null; exit 3";
    assert_eq!(play(script).await, (Ended::Exit(3), "once\n".to_owned()));
}

/// A network of the test's own beyond the machine, with somebody in it who answers.
struct World {
    name: String,
    server: std::process::Child,
}

impl World {
    /// Where the machine itself and the other are.
    const MACHINE: &str = "198.51.100.1";
    const BEYOND: &str = "198.51.100.2";

    fn new() -> Self {
        let name = format!("tw{}", std::process::id());
        let (near, far) = (format!("{name}n"), format!("{name}f"));
        for order in [
            format!("netns add {name}"),
            format!("link add {near} type veth peer name {far} netns {name}"),
            format!("addr add {}/30 dev {near}", Self::MACHINE),
            format!("link set {near} up"),
            format!("-n {name} addr add {}/30 dev {far}", Self::BEYOND),
            format!("-n {name} link set {far} up"),
        ] {
            ip(&order);
        }
        // What a machine does whose way out this is.
        let switch = format!("/proc/sys/net/ipv4/conf/{near}/forwarding");
        fs::write(switch, "1").unwrap();
        let server = "netns exec NAME busybox nc -ll -p 7000 -e echo world";
        let server = server.replace("NAME", &name);
        let server = Command::new("ip").args(server.split(' ')).spawn().unwrap();
        Self { name, server }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        ip(&format!("netns delete {}", self.name));
    }
}

fn ip(order: &str) {
    let done = Command::new("ip").args(order.split(' ')).status().unwrap();
    assert!(done.success(), "ip {order}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_network_reaches_the_world_alone() {
    let _world = World::new();
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for caller in host.incoming() {
            caller.unwrap().write_all(b"host\n").unwrap();
        }
    });
    let subject = subject();
    let terms = Terms {
        network: Network::Private,
        ..subject.terms()
    };
    let other = Scene::new();
    let other_cell = other.open(&subject, &terms).await;
    let (say, ready) = oneshot::channel();
    let mut watched = Watched::new(say);
    let script = "nc -ll -p 7000 -e echo other & \
        address=$(ip -4 -o addr show eth0 | grep -o '10.213[.0-9]*' | head -n 1); \
        until nc -w 9 $address 7000 </dev/null; do sleep 0.1; done; echo $address > address; \
        echo ready; sleep 1000";
    let served = command(other_cell.as_ref(), &["sh", "-c", script]);
    let serving = other_cell.run(&served, &mut watched, never());
    let asking = async {
        ready.await.unwrap();
        let address = fs::read_to_string(other.site.workspace.join("address")).unwrap();
        let (other, machine, beyond) = (address.trim(), World::MACHINE, World::BEYOND);
        let ask = format!(
            "ask() {{ nc -w $1 $2 $3 </dev/null 2>/dev/null; }}; \
             until ask 9 {beyond} 7000; do sleep 0.1; done; \
             ask 2 {other} 7000 & ask 2 10.213.0.1 {port} & ask 2 {machine} {port} & wait"
        );
        let (_, text) = Scene::run(&subject, &terms, &ask).await;
        assert_eq!(text, "world\n");
        // Who shares the machine's network does reach it, so somebody was there.
        let shares = Terms {
            network: Network::Host,
            ..subject.terms()
        };
        let ask = format!("nc -w 9 {machine} {port} </dev/null");
        assert_eq!(Scene::run(&subject, &shares, &ask).await.1, "host\n");
    };
    tokio::select! {
        finished = serving => panic!("{finished:?}"),
        () = asking => {}
    }
    other_cell.close().await.unwrap();
    other.becomes_clean().await;
}

/// The next command of a cell finds what the one before it wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_cell_keeps_its_root() {
    let (subject, scene) = (subject(), Scene::new());
    let terms = Terms {
        network: Network::Private,
        ..subject.terms()
    };
    let cell = scene.open(&subject, &terms).await;
    let first = "mkdir /usr/more && echo kept > /usr/more/file && mv /usr /moved";
    run(cell.as_ref(), first, never()).await.0.unwrap();
    let (finished, printed) = run(cell.as_ref(), "cat /moved/more/file", never()).await;
    assert_eq!(finished.unwrap().ended, Ended::Exit(0));
    assert_eq!(printed.text(), "kept\n");
    cell.close().await.unwrap();
    scene.assert_clean();
}

/// Whoever finds the folder of a cell gives back its place on the bridge.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_swept() {
    let (subject, scene) = (subject(), Scene::new());
    let terms = Terms {
        network: Network::Private,
        ..subject.terms()
    };
    let own = scene.site.folder.to_str().unwrap();
    let leases = || {
        let all = fs::read_dir("/run/distci/addresses").unwrap().flatten();
        let held = all.filter(|lease| fs::read_to_string(lease.path()).is_ok_and(|by| by == own));
        held.count()
    };
    let cell = scene.open(&subject, &terms).await;
    assert_eq!(leases(), 1);
    let (say, ready) = oneshot::channel();
    let mut watched = Watched::new(say);
    let command = command(cell.as_ref(), &["sh", "-c", "echo ready; sleep 1000"]);
    tokio::select! {
        finished = cell.run(&command, &mut watched, never()) => panic!("{finished:?}"),
        said = ready => said.unwrap(),
    }
    drop(cell);
    sweep(&scene.site.folder).unwrap();
    assert_eq!(leases(), 0);
    scene.becomes_clean().await;
}
