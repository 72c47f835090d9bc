//! Cells that are containers of podman or of a docker daemon.
//!
//! Owns what both have in common, which is nearly all: their command lines differ in a few words, told
//! by a [`Tool`]. The container's groups lie in one of ours, which knows what it took, and through
//! which it is stopped and killed: its processes may belong to a daemon, not to us.

mod start;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use distci_model::isolation::{Driver, Network};

use crate::cell::{
    Account, Cell, Command, Ended, Finished, Output, Place, Shared, Site, Stop, Terms,
};
use crate::error::Error;
use crate::group::{Group, Groups};
use crate::heard::Heard;
use crate::image::Image;
use crate::journal::{self, Container, Journal};
use crate::launch::{Launch, tool_environment};
use crate::processes::kill_bearers;
use crate::stage::Stage;
use crate::view::View;
use start::Progress;

/// The signal of the kernel when it wants memory.
const KILLED: u8 = 9;

/// How one of them is called.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    /// Whose it is.
    pub(crate) driver: Driver,
    /// The command line up to the word that says what to do.
    pub(crate) line: Vec<OsString>,
    /// What it has to be told by its environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// What every `run` is told.
    pub(crate) options: Vec<String>,
    /// The network for cells with a private one, if there may be such.
    pub(crate) private: Option<String>,
    /// A static busybox of the machine, by which a container begins, whatever its image has.
    pub(crate) busybox: PathBuf,
}

/// What a container's root file system is made from.
pub(crate) enum Root {
    /// An overlay that is mounted for the cell.
    Mounted,
    /// An image that the tool has by this name.
    Imported(String),
}

/// A cell of one of them.
pub(crate) struct OciCell {
    supervisor: Vec<OsString>,
    tool: Tool,
    site: Site,
    group: Group,
    root: OsString,
    network: Network,
    shared: Vec<Shared>,
    /// Whether there may be a container of an earlier run.
    used: AtomicBool,
    /// Whether a run was begun and not seen to its end.
    running: AtomicBool,
}

/// The image that `terms` ask for.
pub(crate) fn image_of(driver: Driver, terms: &Terms) -> Result<&Image, Error> {
    terms.image.as_ref().ok_or_else(|| {
        let why = format!("the driver {driver} needs an image: name one in the task's isolation");
        Error::Unsupported(why)
    })
}

impl Tool {
    /// A cell over `root`.
    pub(crate) fn open(
        self,
        supervisor: &[OsString],
        groups: &Groups,
        site: &Site,
        (terms, root): (&Terms, Root),
    ) -> Result<Box<dyn Cell>, Error> {
        let image = image_of(self.driver, terms)?;
        let Some(group) = groups.plan(&site.name, terms)? else {
            let (driver, why) = (self.driver, groups.trouble().unwrap_or_default());
            let why = format!("the driver {driver} needs control groups: {why}");
            return Err(Error::Unsupported(why));
        };
        let stage = matches!(root, Root::Mounted).then(|| Stage::make(image, &site.folder));
        let stage = stage.transpose()?;
        let journal = Journal {
            group: Some(group.clone()),
            mounts: stage.iter().map(Stage::root).collect(),
            container: Some(self.container(&site.name)),
            ..Journal::default()
        };
        journal.write(&site.folder)?;
        group.make_for_others(terms)?;
        if let Some(stage) = &stage {
            stage.mount_root()?;
        }
        let root = match (root, stage) {
            (Root::Imported(name), _) => name.into(),
            (Root::Mounted, stage) => stage.map(|stage| stage.root().into()).unwrap_or_default(),
        };
        Ok(Box::new(OciCell {
            supervisor: supervisor.to_vec(),
            tool: self,
            site: site.clone(),
            group,
            root,
            network: terms.network,
            shared: terms.shared.clone(),
            used: AtomicBool::new(false),
            running: AtomicBool::new(false),
        }))
    }

    /// Lets it do something and waits for that. Says what it printed. Blocks.
    pub(crate) fn call(&self, doing: &'static str, words: &[&str]) -> Result<String, Error> {
        let Some((program, line)) = self.line.split_first() else {
            return Err(Error::driver(doing, &"no program is configured"));
        };
        let done = std::process::Command::new(program)
            .args(line)
            .args(words)
            .env_clear()
            .envs(tool_environment())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .output()
            .map_err(|error| Error::driver(doing, &error))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        Err(Error::driver(doing, &last_lines(&said)))
    }

    /// How the container of that name is removed.
    fn container(&self, name: &str) -> Container {
        let mut remove = vec!["env".to_owned()];
        let text = |word: &OsStr| word.to_string_lossy().into_owned();
        for (name, value) in &self.env {
            remove.push(format!("{}={}", text(name), text(value)));
        }
        remove.extend(self.line.iter().map(|word| text(word)));
        remove.extend(["rm", "--force", "--volumes", name].map(str::to_owned));
        Container {
            driver: self.driver,
            remove,
        }
    }
}

#[async_trait]
impl Cell for OciCell {
    fn path(&self, place: Place) -> PathBuf {
        place.inside()
    }

    fn account(&self) -> Account {
        Account::root()
    }

    async fn run(
        &self,
        command: &Command,
        output: &mut dyn Output,
        stop: Stop<'_>,
    ) -> Result<Finished, Error> {
        if self.used.swap(true, Ordering::Relaxed) {
            let earlier = self.tool.container(&self.site.name);
            blocking(move || Ok(earlier.remove()?)).await?;
        }
        start::write(&self.site, command)?;
        let mut env = tool_environment();
        env.extend(self.tool.env.iter().cloned());
        let launch = Launch {
            supervisor: &self.supervisor,
            key: &self.site.key,
            argv: self.line(),
            directory: "/".into(),
            env,
            group: None,
            others: Some(&self.group),
            container: true,
            view: View::default(),
            stage: None,
            files: Vec::new(),
        };
        let mut heard = Heard::new(output);
        self.running.store(true, Ordering::Relaxed);
        let finished = launch.run(&mut heard, stop).await;
        self.running.store(false, Ordering::Relaxed);
        judge(finished?, Progress::read(&self.site)?, &heard.words())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        if self.running.load(Ordering::Relaxed) {
            // The tool may be about to make the container that is to be removed.
            let key = self.site.key.clone();
            blocking(move || Ok(kill_bearers(&key))).await?;
        }
        Ok(journal::close(&self.site).await?)
    }
}

impl OciCell {
    /// The whole command line that runs the container.
    fn line(&self) -> Vec<OsString> {
        let mut line = self.tool.line.clone();
        let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
        add(&["run", "--name", &self.site.name, "--hostname", "distci"]);
        let network = match self.network {
            Network::Host => "host",
            Network::None => "none",
            Network::Private => self.tool.private.as_deref().unwrap_or("none"),
        };
        add(&["--network", network]);
        if let Some(parent) = self.group.name_for_others() {
            add(&["--cgroup-parent", &parent]);
        }
        for option in &self.tool.options {
            add(&[option]);
        }
        for place in Place::ALL {
            add(&[
                "--mount",
                &bind(&self.site.path(place), &place.inside(), ""),
            ]);
        }
        for shared in &self.shared {
            add(&["--mount", &bind(&shared.outside, &shared.inside, "")]);
        }
        for (outside, inside, how) in start::files(&self.site, &self.tool.busybox) {
            add(&["--mount", &bind(&outside, Path::new(inside), how)]);
        }
        line.push(self.root.clone());
        line.extend(start::COMMAND.map(OsString::from));
        line
    }
}

/// The value of `--mount`: a line of comma-separated values, as both read it.
fn bind(outside: &Path, inside: &Path, how: &str) -> String {
    let field = |name: &str, path: &Path| {
        let field = format!("{name}={}", path.display());
        format!("\"{}\"", field.replace('"', "\"\""))
    };
    let (source, target) = (field("source", outside), field("target", inside));
    format!("type=bind,{source},{target}{how}")
}

/// Neither the tool's exit code nor its words are taken for the command's: what came of that is in the
/// container's progress.
fn judge(finished: Finished, progress: Progress, words: &str) -> Result<Finished, Error> {
    const DOING: &str = "running a container";
    let mut usage = finished.usage;
    let ended = match (&finished.ended, progress) {
        (Ended::Stopped, _) => return Ok(finished),
        (Ended::NotStarted(why), _) => return Err(Error::driver(DOING, why)),
        (_, Progress::Nothing) => return Err(Error::driver(DOING, &last_lines(words))),
        (_, Progress::NotStarted(why)) => Ended::NotStarted(why),
        (
            _,
            Progress::Ended {
                code,
                read,
                written,
            },
        ) => {
            (usage.read, usage.written) = (read, written);
            Ended::Exit(code)
        }
        // Who is first in the container may be chosen too when memory is wanted.
        (Ended::Exit(_) | Ended::Signal(_), Progress::Begun) if finished.excess.memory => {
            Ended::Signal(KILLED)
        }
        (ended, Progress::Begun) => {
            let detail = format!("it ended before its command did: {ended:?}");
            return Err(Error::driver(DOING, &detail));
        }
    };
    Ok(Finished {
        ended,
        usage,
        excess: finished.excess,
    })
}

/// The last lines of what a tool said: there it tells the reason.
pub(crate) fn last_lines(said: &str) -> String {
    const MOST: usize = 3;
    let lines: Vec<&str> = said.trim().lines().collect();
    let first = lines.len().saturating_sub(MOST);
    lines.get(first..).unwrap_or_default().join("\n")
}

/// Does what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(what).await;
    done.map_err(|error| Error::driver("waiting for a tool", &error))?
}
