//! What every driver promises, however it keeps a task apart.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use distci_isolation::{Ended, Error, Excess, Place, Shared, Terms, sweep};
use distci_model::isolation::Network;
use tokio::sync::oneshot;

use crate::scene::{Printed, Scene, Subject, command, is_signal, never, run};

/// Runs every law on the driver that `$subject` gives, each as a test of its own. With `in order`
/// before it, it is a list of statements instead, for a subject that is made once.
macro_rules! contract {
    (in order $subject:expr) => {
        crate::laws::contract!(all in_order $subject);
    };
    ($subject:expr) => {
        crate::laws::contract!(all apart $subject);
    };
    (all $how:ident $subject:expr) => {
        crate::laws::contract!(@ $how $subject;
            laws: exit_codes, signals, missing_programs, order_of_output, large_output,
                environment, workspace, places, shared_folders, silent_input, no_strange_files, stop_asks,
                stop_kills, drop_kills, daemons, closing_twice, sweeping_what_was_left,
                fresh_each_time, hidden_machine, networks, several_runs, many_at_once,
                many_leave_nothing;
            limits: memory, processes, cpus, fork_bomb, usage;
            worker: killed_while_it_runs, killed_between
        );
    };
    (@ apart $subject:expr; $($module:ident: $($law:ident),*);*) => {
        $($(
            #[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                crate::$module::$law(&$subject).await;
            }
        )*)*
    };
    (@ in_order $subject:expr; $($module:ident: $($law:ident),*);*) => {
        $($(
            // A law that is broken is the last one named.
            eprintln!("{}", stringify!($law));
            crate::$module::$law($subject).await;
        )*)*
    };
}
pub(crate) use contract;

pub(crate) async fn exit_codes(subject: &Subject) {
    for code in [0, 3, 143, 255] {
        let (finished, _) = Scene::run(subject, &subject.terms(), &format!("exit {code}")).await;
        assert_eq!(finished.ended, Ended::Exit(code));
        assert_eq!(finished.excess, Excess::default());
    }
}

pub(crate) async fn signals(subject: &Subject) {
    for signal in [15, 9, 11] {
        let script = format!("sh -c 'kill -{signal} $$'; exec sh -c 'kill -{signal} $$'");
        let (finished, _) = Scene::run(subject, &subject.terms(), &script).await;
        assert!(is_signal(&finished.ended, signal), "{:?}", finished.ended);
    }
}

pub(crate) async fn missing_programs(subject: &Subject) {
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    let command = command(cell.as_ref(), &["no-such-program", "x"]);
    let finished = cell.run(&command, &mut Printed::default(), never()).await;
    let ended = finished.unwrap().ended;
    let Ended::NotStarted(why) = ended else {
        panic!("{ended:?}");
    };
    assert!(why.contains("no-such-program"), "{why}");
    cell.close().await.unwrap();
    scene.assert_clean();
}

pub(crate) async fn order_of_output(subject: &Subject) {
    let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done";
    let (_, text) = Scene::run(subject, &subject.terms(), script).await;
    assert_eq!(text, "out1\nerr1\nout2\nerr2\nout3\nerr3\n");
}

pub(crate) async fn large_output(subject: &Subject) {
    let bytes = 50_000_000 / subject.scale;
    let script = format!("head -c {bytes} /dev/zero; printf '\\377\\376'");
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    let (finished, printed) = run(cell.as_ref(), &script, never()).await;
    cell.close().await.unwrap();
    assert_eq!(finished.unwrap().ended, Ended::Exit(0));
    assert_eq!(printed.0.len(), bytes + 2);
    assert_eq!(printed.0[bytes..], [0xff, 0xfe]);
    assert!(printed.0[..bytes].iter().all(|b| *b == 0));
}

pub(crate) async fn environment(subject: &Subject) {
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    let mut command = command(cell.as_ref(), &["env"]);
    let odd = "a b\"c'd$e\\f=g;ü\nline two";
    command.env.push(("ODD".into(), odd.into()));
    command.env.push(("EMPTY".into(), "".into()));
    // More than a shell reads at once, and a pipe holds.
    let long = "long ".repeat(20_000);
    command.env.push(("LONG".into(), long.clone().into()));
    let mut printed = Printed::default();
    cell.run(&command, &mut printed, never()).await.unwrap();
    cell.close().await.unwrap();
    let text = printed.text();
    assert!(text.contains(&format!("ODD={odd}\n")), "{text}");
    assert!(text.contains("EMPTY=\n"), "{text}");
    assert!(
        text.contains(&format!("LONG={long}\n")),
        "{} bytes",
        text.len()
    );
    let given = ["PATH", "TMPDIR", "ODD", "EMPTY", "LONG"];
    // The mark of the attempt, what a shell may say of itself, and `container`, the custom of all
    // who make them.
    let allowed = ["DISTCI_ATTEMPT_KEY", "PWD", "SHLVL", "_", "container"];
    let names = text.lines().filter_map(|line| line.split_once('='));
    let strange: Vec<&str> = names
        .map(|(name, _)| name)
        .filter(|name| !given.contains(name) && !allowed.contains(name))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

pub(crate) async fn workspace(subject: &Subject) {
    let scene = Scene::new();
    let workspace = &scene.site.workspace;
    fs::write(
        workspace.join("run"),
        "#!/bin/sh\necho from the workspace\n",
    )
    .unwrap();
    fs::set_permissions(workspace.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(workspace.join("in")).unwrap();
    fs::write(workspace.join("in/secret"), "x").unwrap();
    fs::set_permissions(
        workspace.join("in/secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    symlink("in/secret", workspace.join("link")).unwrap();
    let script = "set -e; ./run; cat link; stat -c %a in/secret; mkdir -p out/deep; \
        echo made > out/deep/file; chmod 640 out/deep/file; ln -s file out/deep/link; \
        printf 'exit 0' > tool; chmod 755 tool; rm in/secret; mv run moved; chmod 500 out";
    let (finished, text) = scene.play(subject, &subject.terms(), script).await;
    assert_eq!(
        (finished.ended, text.as_str()),
        (Ended::Exit(0), "from the workspace\nx600\n")
    );
    let made = fs::metadata(workspace.join("out/deep/file")).unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o640);
    assert_eq!(made.uid(), nix::unistd::getuid().as_raw());
    assert_eq!(
        fs::metadata(workspace.join("tool")).unwrap().mode() & 0o111,
        0o111
    );
    assert_eq!(
        fs::metadata(workspace.join("out")).unwrap().mode() & 0o777,
        0o500
    );
    assert_eq!(
        fs::read_link(workspace.join("out/deep/link"))
            .unwrap()
            .as_os_str(),
        "file"
    );
    assert!(!workspace.join("in/secret").exists() && !workspace.join("run").exists());
    assert!(workspace.join("moved").exists());
    scene.assert_clean();
}

pub(crate) async fn places(subject: &Subject) {
    let scene = Scene::new();
    fs::write(
        scene.site.files.join("script"),
        "echo in the script; echo told > \"$1\"",
    )
    .unwrap();
    let cell = scene.open(subject, &subject.terms()).await;
    let files = cell.path(Place::Files);
    let script = format!(
        "touch $TMPDIR/mine && cd / && sh {0}/script {0}/output",
        files.display()
    );
    let (finished, printed) = run(cell.as_ref(), &script, never()).await;
    assert_eq!(
        finished.unwrap().ended,
        Ended::Exit(0),
        "{}",
        printed.text()
    );
    assert_eq!(printed.text(), "in the script\n");
    assert_eq!(
        fs::read_to_string(scene.site.files.join("output")).unwrap(),
        "told\n"
    );
    cell.close().await.unwrap();
}

pub(crate) async fn shared_folders(subject: &Subject) {
    let scene = Scene::new();
    let outside = scene.site.files.with_file_name("cache");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("old"), "kept\n").unwrap();
    let mut terms = subject.terms();
    terms.shared = vec![Shared {
        outside: outside.clone(),
        inside: "/root/.cache/deep".into(),
    }];
    if !subject.hides_the_machine() {
        let refused = subject.isolation.open(&scene.site, &terms).await.err();
        assert!(
            matches!(refused, Some(Error::Unsupported(_))),
            "{refused:?}"
        );
        return;
    }
    let script = "cd /root/.cache/deep && cat old && echo new > new && chmod 600 new";
    let (finished, text) = scene.play(subject, &terms, script).await;
    assert_eq!((finished.ended, text.as_str()), (Ended::Exit(0), "kept\n"));
    let new = fs::metadata(outside.join("new")).unwrap();
    assert_eq!(new.uid(), nix::unistd::getuid().as_raw());
    assert_eq!(new.permissions().mode() & 0o777, 0o600);
    scene.assert_clean();
}

pub(crate) async fn silent_input(subject: &Subject) {
    let (finished, text) = Scene::run(subject, &subject.terms(), "cat; echo end").await;
    assert_eq!((finished.ended, text.as_str()), (Ended::Exit(0), "end\n"));
}

pub(crate) async fn no_strange_files(subject: &Subject) {
    let (_, text) = Scene::run(subject, &subject.terms(), "exec ls /proc/self/fd").await;
    // The last is the directory that it reads.
    assert_eq!(text, "0\n1\n2\n3\n");
}

pub(crate) async fn stop_asks(subject: &Subject) {
    let script = "trap 'echo bye; exit 7' TERM; echo ready; sleep 1000 & wait";
    let (ended, text) = stopped(subject, script, Duration::from_mins(1)).await;
    assert_eq!((ended, text.as_str()), (Ended::Stopped, "ready\nbye\n"));
}

pub(crate) async fn stop_kills(subject: &Subject) {
    let script = "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; sleep 1000' & \
        echo ready; while :; do sleep 1000; done";
    for grace in [Duration::ZERO, Duration::from_millis(300)] {
        let (ended, text) = stopped(subject, script, grace).await;
        assert_eq!((ended, text.as_str()), (Ended::Stopped, "ready\n"));
    }
}

/// Runs a script that says `ready`, and stops it then.
async fn stopped(subject: &Subject, script: &str, grace: Duration) -> (Ended, String) {
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    let (say, ready) = oneshot::channel();
    let mut watched = Watched::new(say);
    let command = command(cell.as_ref(), &["sh", "-c", script]);
    let stop = Box::pin(async move {
        ready.await.unwrap();
        grace
    });
    let finished = cell.run(&command, &mut watched, stop).await.unwrap();
    cell.close().await.unwrap();
    scene.assert_clean();
    (finished.ended, watched.printed.text())
}

/// Output that tells when the script is ready.
pub(crate) struct Watched {
    printed: Printed,
    ready: Option<oneshot::Sender<()>>,
}

impl Watched {
    pub(crate) fn new(ready: oneshot::Sender<()>) -> Self {
        Self {
            printed: Printed::default(),
            ready: Some(ready),
        }
    }
}

#[async_trait::async_trait]
impl distci_isolation::Output for Watched {
    async fn take(&mut self, bytes: &[u8]) {
        self.printed.take(bytes).await;
        if self.printed.text().contains("ready")
            && let Some(ready) = self.ready.take()
        {
            ready.send(()).ok();
        }
    }
}

pub(crate) async fn drop_kills(subject: &Subject) {
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    let (say, ready) = oneshot::channel();
    let mut watched = Watched::new(say);
    let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    let command = command(cell.as_ref(), &["sh", "-c", script]);
    {
        let running = cell.run(&command, &mut watched, never());
        tokio::select! {
            finished = running => panic!("{finished:?}"),
            said = ready => said.unwrap(),
        }
    }
    cell.close().await.unwrap();
    scene.becomes_clean().await;
}

pub(crate) async fn daemons(subject: &Subject) {
    for script in [
        "sleep 1000 & exit 3",
        "setsid sleep 1000 & exit 3",
        "(setsid sh -c 'setsid sleep 1000 & exit' &) ; exit 3",
        "exec >/dev/null 2>&1; trap '' TERM HUP INT; (while :; do sleep 1000; done) & exit 3",
    ] {
        let (finished, _) = Scene::run(subject, &subject.terms(), script).await;
        assert_eq!(finished.ended, Ended::Exit(3), "{script}");
    }
}

pub(crate) async fn closing_twice(subject: &Subject) {
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    cell.close().await.unwrap();
    sweep(&scene.site.folder).unwrap();
    sweep(&scene.site.folder).unwrap();
    scene.assert_clean();
}

pub(crate) async fn sweeping_what_was_left(subject: &Subject) {
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    run(cell.as_ref(), "echo x > file", never())
        .await
        .0
        .unwrap();
    drop(cell);
    sweep(&scene.site.folder).unwrap();
    scene.assert_clean();
    assert!(scene.site.workspace.join("file").exists());
}

pub(crate) async fn fresh_each_time(subject: &Subject) {
    if !subject.hides_the_machine() {
        return refuses_images(subject);
    }
    let script = "test ! -e /etc/left && test ! -e /tmp/left && \
        echo x > /etc/left && echo x > /tmp/left && rm -rf /bin/busybox /usr/lib /usr/share";
    for _ in 0..2 {
        let (finished, text) = Scene::run(subject, &subject.terms(), script).await;
        assert_eq!(finished.ended, Ended::Exit(0), "{text}");
    }
}

/// A driver that hides nothing must not be given what expects a world of its own.
fn refuses_images(subject: &Subject) {
    assert!(!subject.isolation.driver().has_images());
}

pub(crate) async fn hidden_machine(subject: &Subject) {
    if !subject.hides_the_machine() {
        return refuses_images(subject);
    }
    let scene = Scene::new();
    let outside = scene.site.folder.with_file_name("outside");
    fs::write(&outside, "x").unwrap();
    let own = std::process::id();
    let script = format!(
        "test ! -e {0} || echo sees a file; \
         (echo x > ../../../../../../..{0}) 2>/dev/null; \
         test $(ls -d /proc/[0-9]* | wc -l) -lt 90 || test -e /proc/1/root/init || echo sees others; \
         kill -9 -1 2>/dev/null; kill -9 {own} 2>/dev/null; \
         mount -t tmpfs none /tmp 2>/dev/null; (echo c > /proc/sysrq-trigger) 2>/dev/null; \
         (echo x > /proc/sys/kernel/hostname) 2>/dev/null; \
         (ls /home; ls /root) 2>/dev/null | grep -q . && echo sees a home; true",
        outside.display()
    );
    let name = nix::unistd::gethostname().unwrap();
    let (_, text) = scene.play(subject, &subject.terms(), &script).await;
    assert_eq!(text, "");
    assert_eq!(fs::read_to_string(outside).unwrap(), "x");
    assert_eq!(nix::unistd::gethostname().unwrap(), name);
    scene.assert_clean();
}

pub(crate) async fn networks(subject: &Subject) {
    for network in [Network::Host, Network::None, Network::Private] {
        let mut terms = subject.terms();
        terms.network = network;
        if !subject.networks.contains(&network) {
            let scene = Scene::new();
            let refused = subject.isolation.open(&scene.site, &terms).await.err();
            assert!(
                matches!(refused, Some(Error::Unsupported(_))),
                "{network}: {refused:?}"
            );
            sweep(&scene.site.folder).unwrap();
            scene.assert_clean();
            continue;
        }
        let links = |text: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            let mut names: Vec<String> = lines.map(|(name, _)| name.trim().to_owned()).collect();
            names.sort();
            names
        };
        let before = links(&fs::read_to_string("/proc/net/dev").unwrap());
        let (finished, text) = Scene::run(subject, &terms, "cat /proc/net/dev").await;
        assert_eq!(finished.ended, Ended::Exit(0), "{text}");
        let inside = links(&text);
        match network {
            // Kernels may add their own idle tunnels to every network, so only the real count.
            Network::None => assert!(
                !inside.iter().any(|name| name.starts_with("eth")),
                "{inside:?}"
            ),
            Network::Private => assert!(
                inside.iter().any(|name| name.starts_with("eth")),
                "{inside:?}"
            ),
            Network::Host
                if subject.isolation.driver() == distci_model::isolation::Driver::Qemu =>
            {
                assert!(
                    inside.iter().any(|name| name.starts_with('e')),
                    "{inside:?}"
                );
            }
            Network::Host => {
                // Others come and go meanwhile.
                let after = links(&fs::read_to_string("/proc/net/dev").unwrap());
                let lasting = after.iter().filter(|name| before.contains(name));
                let unseen: Vec<&String> = lasting.filter(|name| !inside.contains(name)).collect();
                assert!(unseen.is_empty(), "{unseen:?}");
            }
        }
    }
}

pub(crate) async fn several_runs(subject: &Subject) {
    let scene = Scene::new();
    let cell = scene.open(subject, &subject.terms()).await;
    for round in 1..=2 {
        let script = format!("echo {round} >> log; cat log | wc -l");
        let (finished, printed) = run(cell.as_ref(), &script, never()).await;
        assert_eq!(finished.unwrap().ended, Ended::Exit(0));
        assert_eq!(printed.text().trim(), round.to_string());
    }
    cell.close().await.unwrap();
    scene.assert_clean();
}

pub(crate) async fn many_at_once(subject: &Subject) {
    let count = (20 / subject.scale).max(2);
    let terms = subject.terms();
    let runs = (0..count).map(|n| {
        let (terms, script) = (&terms, format!("sleep 0.2; echo {n}"));
        async move { Scene::run(subject, terms, &script).await }
    });
    let done = futures::future::join_all(runs).await;
    for (n, (finished, text)) in done.into_iter().enumerate() {
        assert_eq!((finished.ended, text), (Ended::Exit(0), format!("{n}\n")));
    }
}

/// Some at a time, so that it does not take long, over all networks in turn.
pub(crate) async fn many_leave_nothing(subject: &Subject) {
    let at_once = (20 / subject.scale).max(1);
    // Where the tool of one driver keeps files that name nobody.
    let files = || fs::read_dir("/run/lxc").into_iter().flatten().count();
    let before = files();
    let networks = subject.networks.iter().cycle().take(subject.many);
    for networks in networks.collect::<Vec<_>>().chunks(at_once) {
        let cells = networks.iter().map(|network| async {
            let terms = Terms {
                network: **network,
                ..subject.terms()
            };
            Scene::run(subject, &terms, "exit 5").await.0.ended
        });
        let ended = futures::future::join_all(cells).await;
        assert_eq!(ended, vec![Ended::Exit(5); networks.len()]);
    }
    assert_eq!(files(), before);
}
