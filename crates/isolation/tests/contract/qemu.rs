//! The driver that makes a virtual machine for each command, here without the help of a processor.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use distci_isolation::{
    Accelerator, Ended, Error, Groups, Image, Isolation, Qemu, Terms, prepare_kernel,
};
use distci_model::isolation::{Network, Size};

use crate::image::busybox;
use crate::laws::contract;
use crate::scene::{Scene, Subject, never, program, run, supervisor};

/// Made once in the target folder, for all tests and their later runs.
fn kernel() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel");
    prepare_kernel(&folder).unwrap();
    folder
}

fn untried() -> Qemu {
    let groups = Groups::find();
    assert_eq!(groups.trouble(), None);
    let agent = (program().into(), "agent".to_owned());
    Qemu::new(supervisor(), agent, groups, kernel())
}

fn qemu() -> Qemu {
    untried().with_accelerator(Accelerator::Tcg)
}

fn subject() -> Subject {
    Subject {
        isolation: Box::new(qemu()),
        image: Some(busybox()),
        networks: &[Network::None, Network::Host],
        scale: 25,
        many: 3,
    }
}

contract!(subject());

/// What a command in `image` comes to.
async fn failure(qemu: &Qemu, image: Image) -> Error {
    let scene = Scene::new();
    let terms = Terms {
        image: Some(image),
        network: Network::None,
        ..Terms::default()
    };
    let cell = qemu.open(&scene.site, &terms).await.unwrap();
    let (finished, _) = run(cell.as_ref(), "true", never()).await;
    cell.close().await.unwrap();
    scene.assert_clean();
    finished.unwrap_err()
}

#[tokio::test]
async fn without_a_kernel_it_says_what_makes_one() {
    let mut qemu = qemu();
    qemu.kernel = "/nowhere".into();
    let scene = Scene::new();
    let error = qemu
        .probe(&busybox(), &scene.site.temporary)
        .await
        .unwrap_err();
    let Error::Unsupported(why) = error else {
        panic!("{error:?}");
    };
    assert!(why.contains("distci image kernel"), "{why}");
}

#[tokio::test]
async fn a_kernel_that_panics_is_quoted() {
    let broken = tempfile::tempdir().unwrap();
    fs::create_dir(broken.path().join("modules")).unwrap();
    fs::copy(kernel().join("vmlinux"), broken.path().join("vmlinux")).unwrap();
    let mut qemu = qemu();
    // It begins with a program that is none.
    fs::write(broken.path().join("agent"), "#!/nowhere\n").unwrap();
    qemu.kernel = broken.path().to_owned();
    qemu.agent.0 = broken.path().join("agent");
    let error = failure(&qemu, busybox()).await.to_string();
    assert!(error.contains("Kernel panic"), "{error}");
    assert!(error.len() < 6000, "{error}");
}

#[tokio::test]
async fn a_kernel_that_is_none_is_quoted() {
    let broken = tempfile::tempdir().unwrap();
    fs::create_dir(broken.path().join("modules")).unwrap();
    fs::write(broken.path().join("vmlinux"), "x").unwrap();
    let mut qemu = qemu();
    qemu.kernel = broken.path().to_owned();
    let error = failure(&qemu, busybox()).await.to_string();
    assert!(error.contains("qemu: linux kernel"), "{error}");
}

#[tokio::test]
async fn a_machine_that_does_not_boot_is_not_waited_for() {
    let mut qemu = qemu();
    qemu.patience = Duration::from_millis(200);
    let error = failure(&qemu, busybox()).await.to_string();
    assert!(error.contains("it did not boot in 0.2 s"), "{error}");
}

#[tokio::test]
async fn an_image_that_is_broken_is_to_blame() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    fs::create_dir_all(broken.join("root")).unwrap();
    fs::write(broken.join("root.squashfs"), vec![7; 65536]).unwrap();
    let error = failure(&qemu(), Image::in_folder(&broken).unwrap()).await;
    assert!(matches!(error, Error::Image { .. }), "{error:?}");
}

/// Independently of what it does to find that out: a processor that helps says so.
#[tokio::test]
async fn the_accelerator_is_one_that_works() {
    let (qemu, scene) = (untried(), Scene::new());
    assert_eq!(qemu.accelerator(), None);
    qemu.probe(&busybox(), &scene.site.temporary).await.unwrap();
    scene.assert_clean();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags = processors.lines().find(|line| line.starts_with("flags"));
    let mut flags = flags.unwrap().split_whitespace();
    let helps = Path::new("/dev/kvm").exists() && flags.any(|flag| ["vmx", "svm"].contains(&flag));
    let best = if helps {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    assert_eq!(qemu.accelerator(), Some(best));
}

#[tokio::test]
async fn a_full_disk_is_told() {
    let subject = subject();
    let terms = Terms {
        disk: Size::from_bytes(32 << 20),
        ..subject.terms()
    };
    let greedy = "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null; echo $?";
    let (finished, text) = Scene::run(&subject, &terms, greedy).await;
    assert_eq!((finished.ended, text.as_str()), (Ended::Exit(0), "1\n"));
    assert!(finished.excess.disk);
}

#[tokio::test]
async fn what_does_not_fit_out_of_the_machine_is_told() {
    let subject = subject();
    let terms = Terms {
        disk: Size::from_bytes(32 << 20),
        ..subject.terms()
    };
    // A hole takes no room on the disk, but would in the workspace.
    let (finished, text) = Scene::run(&subject, &terms, "truncate -s 10G hole").await;
    assert_eq!(finished.ended, Ended::Signal(9));
    assert!(finished.excess.disk);
    assert!(text.contains("hole"), "{text}");
}

#[tokio::test]
async fn a_task_that_switches_its_machine_off_is_killed_by_that() {
    let scene = Scene::new();
    fs::write(scene.site.workspace.join("file"), "kept").unwrap();
    let subject = subject();
    let script = "rm file; echo begun; sync; reboot -f; sleep 1000";
    let (finished, text) = scene.play(&subject, &subject.terms(), script).await;
    assert_eq!(finished.ended, Ended::Signal(9));
    assert!(text.starts_with("begun\n"), "{text}");
    assert!(
        text.contains("the virtual machine ended before the task"),
        "{text}"
    );
    let kept = fs::read_to_string(scene.site.workspace.join("file"));
    assert_eq!(kept.unwrap(), "kept");
    scene.assert_clean();
}

#[tokio::test]
async fn a_task_may_take_its_world_apart() {
    let scene = Scene::new();
    let subject = subject();
    let script = "echo mine > file; cd /; setsid sleep 1000 & \
        umount -l /sys/fs/cgroup /proc; umount -l /workspace; \
        mount -t tmpfs none /workspace; echo other > /workspace/file; exit 3";
    let (finished, text) = scene.play(&subject, &subject.terms(), script).await;
    assert_eq!(finished.ended, Ended::Exit(3), "{text}");
    let file = fs::read_to_string(scene.site.workspace.join("file"));
    assert_eq!(file.unwrap(), "mine\n");
    scene.assert_clean();
}

#[tokio::test]
async fn links_stay_links() {
    let scene = Scene::new();
    let outside = scene.site.folder.with_file_name("outside");
    fs::create_dir(&outside).unwrap();
    let subject = subject();
    let script = format!("ln -s {} link; ln -s link/x next", outside.display());
    let (finished, text) = scene.play(&subject, &subject.terms(), &script).await;
    assert_eq!(finished.ended, Ended::Exit(0), "{text}");
    // A second task finds them, and what it writes there is its own.
    let script = format!("mkdir -p {0}; echo x > next; cat {0}/x", outside.display());
    let (finished, text) = scene.play(&subject, &subject.terms(), &script).await;
    assert_eq!((finished.ended, text.as_str()), (Ended::Exit(0), "x\n"));
    assert_eq!(
        fs::read_link(scene.site.workspace.join("link")).unwrap(),
        outside
    );
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_of_the_host_reaches_the_machine() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).unwrap();
        let body = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
        stream.write_all(body.as_bytes()).unwrap();
        asked
    });
    let subject = subject();
    let terms = Terms {
        network: Network::Host,
        ..subject.terms()
    };
    let script = format!("cat /etc/resolv.conf; wget -q -O - http://10.0.2.2:{port}/");
    let (finished, text) = Scene::run(&subject, &terms, &script).await;
    assert_eq!(finished.ended, Ended::Exit(0), "{text}");
    assert_eq!(text, "nameserver 10.0.2.3\nhello\n");
    assert_eq!(&served.join().unwrap(), b"GET ");
}
