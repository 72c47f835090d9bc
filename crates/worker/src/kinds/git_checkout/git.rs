//! The `git` command, run in the cell.
//!
//! Owns its environment and its configuration: nothing that the worker's user has set takes part,
//! nothing asks questions, and credentials are named only in a file that git itself reads.

use std::ffi::OsString;
use std::path::Path;

use distci_isolation::Command;
use distci_model::outcome::Failure;

use crate::cell::{Cell, Ended, Limits, Output};
use crate::console::Console;
use crate::kinds::Assignment;
use crate::room::Room;
use crate::trouble::{Trouble, doing};

/// Variables of the worker's own environment that say how the network is reached.
const NETWORK: [&str; 11] = [
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];
/// How much of git's output is kept to find the reason of a failure in.
const TAIL: usize = 8 * 1024;
/// How much of an answer is kept.
const ANSWER: usize = 256 * 1024;

/// Git, as this attempt runs it.
pub(crate) struct Git<'a> {
    place: Place<'a>,
    console: Option<&'a Console>,
    env: Vec<(OsString, OsString)>,
}

/// Where git runs, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) room: &'a Room,
    pub(crate) cell: &'a Cell,
    pub(crate) limits: &'a Limits,
    /// The seconds that the limits allow, for people.
    pub(crate) timeout: u64,
    /// A file of credentials.
    pub(crate) credentials: Option<&'a Path>,
}

/// What git said to a question.
pub(crate) struct Answer {
    pub(crate) yes: bool,
    pub(crate) text: String,
}

impl<'a> Git<'a> {
    /// Git for a task, whose console shows what it says.
    pub(in crate::kinds) async fn new(assignment: &'a Assignment<'a>) -> Result<Self, Trouble> {
        let place = Place {
            room: assignment.room,
            cell: assignment.cell,
            limits: &assignment.limits,
            timeout: assignment.order.timeout,
            credentials: assignment.worker.settings.git_credentials.as_deref(),
        };
        let console = Some(assignment.console);
        Ok(Self {
            console,
            ..Self::at(place).await?
        })
    }

    /// Writes git's configuration for this attempt.
    pub(crate) async fn at(place: Place<'a>) -> Result<Self, Trouble> {
        let config = place.room.file("gitconfig");
        let text = configuration(place.credentials)?;
        tokio::fs::write(&config, text)
            .await
            .map_err(doing("git configuration"))?;
        Ok(Self {
            place,
            console: None,
            env: environment(&config, place.room),
        })
    }

    /// Runs git with its output on the console.
    pub(in crate::kinds) async fn run(
        &self,
        directory: &Path,
        args: &[&str],
    ) -> Result<(), Trouble> {
        let mut output = match self.console {
            Some(console) => Output::shown(console, TAIL),
            None => Output::kept(TAIL),
        };
        if self.start(directory, args, &mut output).await? {
            return Ok(());
        }
        Err(refused(reason(&output.text())))
    }

    /// Runs git and gives what it says.
    pub(in crate::kinds) async fn ask(
        &self,
        directory: &Path,
        args: &[&str],
    ) -> Result<Answer, Trouble> {
        self.ask_much(directory, args, ANSWER).await
    }

    /// The same for an answer of which the last `most` bytes are kept.
    pub(crate) async fn ask_much(
        &self,
        directory: &Path,
        args: &[&str],
        most: usize,
    ) -> Result<Answer, Trouble> {
        let mut output = Output::kept(most);
        let yes = self.start(directory, args, &mut output).await?;
        Ok(Answer {
            yes,
            text: output.text(),
        })
    }

    /// The commit that `name` means in the repository in `directory`, if that has it.
    pub(in crate::kinds) async fn commit(
        &self,
        directory: &Path,
        name: &str,
    ) -> Result<Option<String>, Trouble> {
        let name = format!("{name}^{{commit}}");
        let parse = [
            "rev-parse",
            "--quiet",
            "--verify",
            "--end-of-options",
            &name,
        ];
        let answer = self.ask(directory, &parse).await?;
        let id = answer
            .text
            .lines()
            .map(str::trim)
            .rfind(|line| is_commit_id(line));
        Ok(id.filter(|_| answer.yes).map(str::to_owned))
    }

    async fn start(
        &self,
        directory: &Path,
        args: &[&str],
        output: &mut Output,
    ) -> Result<bool, Trouble> {
        let git = std::iter::once("git").chain(args.iter().copied());
        let command = Command {
            argv: git.map(OsString::from).collect(),
            directory: directory.to_owned(),
            env: self.env.clone(),
        };
        let ran = self
            .place
            .cell
            .run(&command, output, self.place.limits)
            .await?;
        match ran.ended {
            Ended::Exit(code) => Ok(code == 0),
            Ended::Interrupted(interrupt) => Err(interrupt.into()),
            Ended::TimedOut => Err(Failure::TimedOut {
                seconds: self.place.timeout,
            }
            .into()),
            Ended::Signal(signal) => Err(Trouble::worker(format!("git: ended by signal {signal}"))),
            Ended::NotStarted(why) => Err(Trouble::worker(why)),
        }
    }
}

/// The failure of a checkout.
pub(crate) fn refused(detail: String) -> Trouble {
    Failure::Checkout { detail }.into()
}

/// Whether this is the whole id of a commit, in either of git's hashes.
pub(crate) fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The line of git's output that says why.
pub(crate) fn reason(output: &str) -> String {
    // Progress overwrites its line, so a carriage return ends one too.
    let lines = || {
        output
            .split(['\n', '\r'])
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    // The first cause comes first; what git could not do because of it, last.
    let marked = |mark: &str| lines().find(|line| line.starts_with(mark));
    let line = marked("fatal: ")
        .or_else(|| marked("error: "))
        .or_else(|| lines().next_back());
    let line = line.unwrap_or("git gave no reason");
    let line = line
        .trim_start_matches("fatal: ")
        .trim_start_matches("error: ");
    line.chars().take(300).collect()
}

fn configuration(credentials: Option<&Path>) -> Result<String, Trouble> {
    let mut text = String::from(
        // Repositories of other owners are read on purpose, and submodules may be anywhere. A
        // mirror gives whatever it has.
        "[safe]\n\tdirectory = *\n[protocol \"file\"]\n\tallow = always\n\
         [core]\n\thooksPath = /dev/null\n[advice]\n\tdetachedHead = false\n\
         [init]\n\tdefaultBranch = master\n[gc]\n\tautoDetach = false\n\
         [maintenance]\n\tautoDetach = false\n[fetch]\n\trecurseSubmodules = false\n\
         [uploadpack]\n\tallowAnySHA1InWant = true\n",
    );
    if let Some(file) = credentials {
        let file = std::path::absolute(file).map_err(doing("git credentials"))?;
        let file = file.to_str().ok_or_else(|| {
            Trouble::worker("the path of the git credentials is not UTF-8".to_owned())
        })?;
        // Only `get`: git would also erase what a server refuses, and the file is not ours.
        let shell = file.replace('\'', r"'\''");
        let helper = format!(
            "!f() {{ test \"$1\" != get || git credential-store --file='{shell}' get; }}; f"
        );
        let quoted = helper.replace('\\', r"\\").replace('"', "\\\"");
        text.extend(["[credential]\n\thelper = \"", &quoted, "\"\n"]);
    }
    Ok(text)
}

fn environment(config: &Path, room: &Room) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = vec![
        ("GIT_CONFIG_GLOBAL".into(), config.into()),
        ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
        ("GIT_TERMINAL_PROMPT".into(), "0".into()),
        ("GIT_SSH_COMMAND".into(), "ssh -o BatchMode=yes".into()),
        ("GIT_ASKPASS".into(), "true".into()),
        ("TMPDIR".into(), room.temporary().into()),
        ("LANG".into(), "C.UTF-8".into()),
        (
            "PATH".into(),
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
        ),
    ];
    if let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::getuid()) {
        // Where ssh finds its keys.
        env.push(("HOME".into(), user.dir.into()));
    }
    let network = NETWORK
        .iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    env.extend(network);
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_git_calls_fatal() {
        let said = "Cloning\nfatal: repository '/x' does not exist\nfatal: no more\nPlease\n";
        assert_eq!(reason(said), "repository '/x' does not exist");
        assert_eq!(reason("10%\r20%\rerror: oops\r\n"), "oops");
        assert_eq!(reason("only this\n"), "only this");
        assert_eq!(reason(""), "git gave no reason");
    }

    #[test]
    fn credentials_are_read_and_never_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, config) = (
            folder.path().join("it's here"),
            folder.path().join("config"),
        );
        let content = "https://me:secret@host\n";
        std::fs::write(&store, content).unwrap();
        std::fs::write(&config, configuration(Some(&store)).unwrap()).unwrap();
        let credential = |deed: &str, question: &str| {
            let asked = folder.path().join("question");
            std::fs::write(&asked, question).unwrap();
            let output = std::process::Command::new("git")
                .args(["credential", deed])
                .env("GIT_CONFIG_GLOBAL", &config)
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_TERMINAL_PROMPT", "0")
                .stdin(std::fs::File::open(asked).unwrap())
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let question = "protocol=https\nhost=host\n\n";
        assert!(credential("fill", question).contains("password=secret"));
        credential(
            "reject",
            "protocol=https\nhost=host\nusername=me\npassword=secret\n\n",
        );
        assert_eq!(std::fs::read_to_string(&store).unwrap(), content);
    }

    #[test]
    fn the_path_of_the_credentials_is_no_code() {
        let text = configuration(Some(Path::new("/a b/it's \"$x\""))).unwrap();
        let helper = r#"--file='/a b/it'\\''s \"$x\"' get"#;
        assert!(text.contains(helper), "{text}");
    }
}
