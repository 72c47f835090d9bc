//! Processes that live in a folder, outlive the one who started them, and can be found again.
//!
//! Owns `run/NAME.command`, `run/NAME.prefix`, `run/NAME.pid` and `log/NAME.log`. A process is ours while its command
//! line ends with the recorded command; that names a file of this very folder, so a pid that went to
//! somebody else is never signalled.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::patience::{LONG, wait_for};

const COMPLETE: &str = "complete";

/// How long a daemon may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Notes its own pid before it becomes the daemon: no moment is left in which a daemon runs that
/// nobody could find.
const LAUNCH: &str =
    r#"ulimit -n 65536 2>/dev/null; echo $$ >"$0.new" && mv "$0.new" "$0" && exec setsid "$@""#;

/// The daemons of one folder.
#[derive(Clone, Debug)]
pub struct Daemons {
    dir: PathBuf,
}

/// One daemon, running or not.
#[derive(Clone, Debug)]
pub struct Daemon {
    name: String,
    dir: PathBuf,
    workplace: PathBuf,
}

impl Daemons {
    /// The daemons of a folder, which is created if it is not there.
    pub fn in_folder(dir: &Path) -> Result<Self> {
        for part in ["run", "log"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let dir = dir.canonicalize()?;
        Ok(Self { dir })
    }

    /// The folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The daemon of that name, whether it was ever started or not.
    pub fn get(&self, name: &str) -> Daemon {
        Daemon {
            name: name.to_owned(),
            dir: self.dir.clone(),
            workplace: self.dir.clone(),
        }
    }

    /// Every daemon that was ever started here, by name.
    pub fn all(&self) -> Result<Vec<Daemon>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.dir.join("run"))? {
            let file = entry?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".command"));
            names.extend(name.map(str::to_owned));
        }
        names.sort();
        Ok(names.iter().map(|name| self.get(name)).collect())
    }

    /// Notes that everything was set up: a start that was interrupted lacks the note.
    pub fn mark_complete(&self) -> Result<()> {
        let note = self.dir.join(COMPLETE);
        fs::write(&note, "").with_context(|| note.display().to_string())
    }

    /// Whether everything in a folder was once set up, running now or not.
    pub fn is_complete(dir: &Path) -> bool {
        dir.join(COMPLETE).exists()
    }

    /// Kills what runs in a folder and removes the folder. One without daemons is left alone.
    pub fn remove(dir: &Path) -> Result<()> {
        if dir.join("run").is_dir() {
            Self::in_folder(dir)?.kill_all()?;
            fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        Ok(())
    }

    /// Kills whatever runs here, paused ones too, and waits until it is gone.
    pub fn kill_all(&self) -> Result<()> {
        let all = self.all()?;
        for daemon in &all {
            daemon.signal(Signal::SIGKILL)?;
        }
        all.iter().try_for_each(Daemon::wait_until_gone)
    }
}

impl Daemon {
    /// The name in the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log").join(format!("{}.log", self.name))
    }

    /// The file that holds its pid, once it was started.
    pub fn pid_file(&self) -> PathBuf {
        self.file("pid")
    }

    /// Lets the next start happen in another folder than its own.
    #[must_use]
    pub fn working_in(mut self, dir: &Path) -> Self {
        dir.clone_into(&mut self.workplace);
        self
    }

    /// The pid while it runs, paused or not.
    pub fn pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.file("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let command = fs::read(self.file("command")).ok()?;
        reap(pid);
        let running = command_line(pid)?;
        (!command.is_empty() && running.ends_with(&command)).then_some(pid)
    }

    /// Resident memory in bytes while it runs.
    pub fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Starts it with a command that names a file of this folder.
    ///
    /// The daemon has a session of its own, no standard input, and its log as output: nothing of
    /// the caller's is kept open by it.
    pub fn start(&self, command: &[String]) -> Result<()> {
        self.start_behind(&[], command)
    }

    /// The same behind a prefix, such as `ip netns exec NAME`: a command that in the end becomes the
    /// one that follows it.
    pub fn start_behind(&self, prefix: &[String], command: &[String]) -> Result<()> {
        let here = self.dir.to_string_lossy();
        if !command.iter().any(|word| word.contains(&*here)) {
            bail!("the command of {} does not name {here}", self.name);
        }
        fs::write(self.file("prefix"), ended(prefix))?;
        fs::write(self.file("command"), ended(command))?;
        self.start_again()
    }

    /// Starts it with the command it had; does nothing while it runs.
    pub fn start_again(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let words = self.words()?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let pid = Command::new("sh")
            .args(["-c", LAUNCH])
            .arg(self.file("pid"))
            .args(words)
            .current_dir(&self.workplace)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map(|child| child.id())
            .with_context(|| format!("start {}", self.name))?;
        let noted = || Ok((self.pid() == Some(pid) || !exists(pid)).then_some(()));
        wait_for(&format!("start of {}", self.name), LONG, noted)
    }

    /// A line for a shell that starts it again, for those who have no more than a shell; does nothing
    /// while it runs.
    pub fn start_line(&self) -> Result<String> {
        let pid = self.pid_file();
        let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
        let words: Vec<_> = self.words()?.iter().map(|word| quoted(word)).collect();
        let (pid, log) = (quoted(&pid.to_string_lossy()), self.log());
        Ok(format!(
            // A killed one that nobody took leave of yet does not run.
            "grep -qs '^State:[[:space:]]*[^[:space:]ZX]' /proc/$(cat {pid})/status || \
             (cd {} && sh -c {} {pid} {} <&- >>{} 2>&1 &)",
            quoted(&self.workplace.to_string_lossy()),
            quoted(LAUNCH),
            words.join(" "),
            quoted(&log.to_string_lossy())
        ))
    }

    /// The prefix and the command that it had.
    fn words(&self) -> Result<Vec<String>> {
        let command = fs::read_to_string(self.file("command"))
            .with_context(|| format!("{} was never started", self.name))?;
        // Folders of an earlier layout have no prefixes.
        let prefix = fs::read_to_string(self.file("prefix")).unwrap_or_default();
        let words = prefix
            .split_terminator('\0')
            .chain(command.split_terminator('\0'));
        Ok(words.map(str::to_owned).collect())
    }

    /// Refuses a daemon that does not run, with the end of its log.
    pub fn require_running(&self) -> Result<()> {
        if self.pid().is_none() {
            bail!("{} ended:\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.log())
    }

    /// Ends it without a warning, and waits until its sockets are closed.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_until_gone()
    }

    /// Lets it end by itself for a while, then kills it.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        self.signal(Signal::SIGCONT)?;
        let gone = || Ok(self.is_gone().then_some(()));
        if wait_for("end", GRACE, gone).is_err() {
            self.kill()?;
        }
        Ok(())
    }

    /// Freezes it: its sockets stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a paused one go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        match kill(Pid::from_raw(i32::try_from(pid)?), signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{signal} to {}", self.name)),
        }
    }

    fn wait_until_gone(&self) -> Result<()> {
        let gone = || Ok(self.is_gone().then_some(()));
        wait_for(&format!("end of {}", self.name), LONG, gone)
    }

    /// Whether the process and all its threads are gone. The command line of a dying process is
    /// empty before its sockets are closed, so this looks at the process itself.
    fn is_gone(&self) -> bool {
        let noted = fs::read_to_string(self.file("pid")).ok();
        let Some(pid) = noted.and_then(|pid| pid.trim().parse().ok()) else {
            return true;
        };
        reap(pid);
        let is_other = || {
            let running = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !running.is_empty() && self.pid().is_none()
        };
        !exists(pid) || is_other()
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.dir.join("run").join(format!("{}.{suffix}", self.name))
    }
}

/// Words as the kernel shows them, each with its end.
fn ended(words: &[String]) -> Vec<u8> {
    let ended = |word: &String| [word.as_bytes(), &[0]].concat();
    words.iter().flat_map(ended).collect()
}

/// The last lines of a log, or what kept us from reading it.
pub(crate) fn tail(log: &Path) -> String {
    let shown = log.display();
    match fs::read(log) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<_> = text.lines().collect();
            let start = lines.len().saturating_sub(15);
            format!(
                "(end of {shown})\n{}",
                lines.get(start..).unwrap_or_default().join("\n")
            )
        }
        Err(error) => format!("({shown}: {error})"),
    }
}

/// Whether a process lives, zombies aside: what is left of those is only waiting for its parent.
fn exists(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The name in parentheses may contain anything; the state follows the last of them.
    let is_zombie = stat
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('Z'));
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !is_zombie || threads > 1
}

/// The command line of a process. It is empty for a moment while a process becomes another program,
/// and while it dies: this waits for what comes of it, or a daemon that has just been started could
/// pass for one that ended.
fn command_line(pid: u32) -> Option<Vec<u8>> {
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if !line.is_empty() || !exists(pid) || Instant::now() > end {
            return Some(line);
        }
        sleep(Duration::from_millis(1));
    }
}

/// Takes leave of a child of ours that ended. Everybody else's processes are not ours to reap.
fn reap(pid: u32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        // Ended just now, still running, or never a child of ours: the caller looks at /proc.
        Ok(_) | Err(_) => {}
    }
}
