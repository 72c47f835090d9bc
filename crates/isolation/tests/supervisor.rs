//! The supervisor from outside: what a worker sees of it, and what is left when it is gone.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A supervised script.
struct Supervised {
    child: Child,
    /// How the processes of this script can be told from others.
    key: String,
}

fn supervise(script: &str) -> Supervised {
    supervise_argv(&["sh", "-c", script])
}

fn supervise_argv(argv: &[&str]) -> Supervised {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().display().to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_distci-isolation-test"))
        .args(["supervise", "{}"])
        .args(argv)
        .env("TEST_KEY", &key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Supervised { child, key }
}

impl Supervised {
    fn console(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    fn tell(&mut self, order: u8) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(&[order])
            .unwrap();
    }

    /// Reads one line: the script has come that far.
    fn line(console: &mut ChildStdout) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while console.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// The report, once the supervisor is gone; and nothing of the script may be left then.
    fn report(mut self) -> String {
        let mut report = String::new();
        let mut pipe = self.child.stderr.take().unwrap();
        pipe.read_to_string(&mut report).unwrap();
        // The lifeline stays open until here: the end of the script alone must do.
        self.child.wait().unwrap();
        assert_eq!(bearers(&self.key), 0, "something outlived its supervisor");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        report["end"].to_string()
    }
}

/// How many processes carry the key.
fn bearers(key: &str) -> usize {
    let wanted = format!("TEST_KEY={key}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let bears = |entry: &std::fs::DirEntry| {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environ
            .split(|&b| b == 0)
            .any(|variable| variable == wanted.as_bytes())
    };
    processes.filter(bears).count()
}

#[test]
fn exit_code_and_signal_are_told_apart() {
    assert_eq!(supervise("exit 0").report(), r#"{"exit":0}"#);
    assert_eq!(supervise("exit 143").report(), r#"{"exit":143}"#);
    assert_eq!(supervise("kill -TERM $$").report(), r#"{"signal":15}"#);
    // A real-time signal, for which many libraries have no name.
    assert_eq!(supervise("kill -40 $$").report(), r#"{"signal":40}"#);
}

#[test]
fn a_missing_program_is_said() {
    let report = supervise_argv(&["no-such-program"]).report();
    assert_eq!(
        report,
        r#"{"not_started":"no-such-program: no such program"}"#
    );
}

#[test]
fn output_and_errors_keep_their_order() {
    let mut supervised = supervise("for i in 1 2 3; do echo out$i; echo err$i >&2; done");
    let mut text = String::new();
    supervised.console().read_to_string(&mut text).unwrap();
    assert_eq!(text, "out1\nerr1\nout2\nerr2\nout3\nerr3\n");
    assert_eq!(supervised.report(), r#"{"exit":0}"#);
}

#[test]
fn a_daemon_does_not_outlive_its_script() {
    for daemon in [
        "sleep 1000 & exit 3",
        "setsid sleep 1000 & exit 3",
        "(setsid sh -c 'setsid sleep 1000 & exit' &) ; exit 3",
        "exec >/dev/null 2>&1; trap '' TERM HUP INT; (while :; do sleep 1000; done) & exit 3",
    ] {
        assert_eq!(supervise(daemon).report(), r#"{"exit":3}"#, "{daemon}");
    }
}

#[test]
fn a_script_that_is_asked_to_end_may_clean_up() {
    let mut supervised = supervise("trap 'echo bye; exit 7' TERM; echo ready; sleep 1000 & wait");
    let mut console = supervised.console();
    assert_eq!(Supervised::line(&mut console), "ready");
    supervised.tell(b't');
    assert_eq!(Supervised::line(&mut console), "bye");
    assert_eq!(supervised.report(), r#"{"exit":7}"#);
}

#[test]
fn a_script_that_ignores_the_question_is_killed() {
    let mut supervised = supervise("trap '' TERM; echo ready; while :; do sleep 1000; done");
    let mut console = supervised.console();
    assert_eq!(Supervised::line(&mut console), "ready");
    supervised.tell(b't');
    supervised.tell(b'k');
    assert_eq!(supervised.report(), r#"{"signal":9}"#);
}

#[test]
fn the_death_of_the_worker_takes_everything_along() {
    let mut supervised = supervise(
        "trap '' TERM HUP; setsid sleep 1000 & sleep 1000 & echo ready; wait; wait; sleep 1000",
    );
    let mut console = supervised.console();
    assert_eq!(Supervised::line(&mut console), "ready");
    // What the kernel does with the pipes of a process that was killed.
    drop(supervised.child.stdin.take());
    assert_eq!(supervised.report(), r#"{"signal":9}"#);
}

#[test]
fn a_crowd_of_forking_processes_loses() {
    let bomb = "echo ready; f() { if [ $1 -gt 0 ]; then f $(($1 - 1)) & f $(($1 - 1)) & fi; sleep 1000; }; f 7";
    let mut supervised = supervise(bomb);
    let mut console = supervised.console();
    assert_eq!(Supervised::line(&mut console), "ready");
    supervised.tell(b'k');
    assert_eq!(supervised.report(), r#"{"signal":9}"#);
}

#[test]
fn large_and_odd_output_arrives_whole() {
    let mut supervised = supervise("head -c 50000000 /dev/zero; printf '\\377\\376'");
    let mut bytes = Vec::new();
    supervised.console().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 50_000_002);
    assert_eq!(bytes[50_000_000..], [0xff, 0xfe]);
    assert_eq!(supervised.report(), r#"{"exit":0}"#);
}

#[test]
fn the_script_reads_nothing_and_holds_no_pipe_of_ours() {
    let mut supervised = supervise_argv(&["ls", "/proc/self/fd"]);
    let mut text = String::new();
    supervised.console().read_to_string(&mut text).unwrap();
    // The last is the directory that it reads.
    assert_eq!(text, "0\n1\n2\n3\n");
    assert_eq!(supervised.report(), r#"{"exit":0}"#);
    let mut supervised = supervise("cat; readlink /proc/self/fd/0");
    let mut text = String::new();
    supervised.console().read_to_string(&mut text).unwrap();
    assert_eq!(text, "/dev/null\n");
    assert_eq!(supervised.report(), r#"{"exit":0}"#);
}

#[test]
fn a_script_does_not_inherit_the_mask_of_the_workers_files() {
    let child = Command::new("sh")
        .args(["-c", "umask 077; exec \"$0\" supervise {} sh -c umask"])
        .arg(env!("CARGO_BIN_EXE_distci-isolation-test"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(child.stdout).unwrap(), "0022\n");
}

#[test]
fn only_the_worker_tells_a_supervisor_to_end() {
    // As `systemctl stop` tells all processes of a service; first the supervisor has to be ready.
    let script = "until grep -q 'SigBlk:.*[1-9a-f]' /proc/$PPID/status; do :; done\n\
        kill -TERM $PPID; kill -INT $PPID; kill -HUP $PPID; exit 3";
    assert_eq!(supervise(script).report(), r#"{"exit":3}"#);
    let mut supervised = supervise("grep SigBlk /proc/self/status");
    let blocked = Supervised::line(&mut supervised.console());
    assert_eq!(blocked, "SigBlk:\t0000000000000000");
}
