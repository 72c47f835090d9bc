//! The command line as it is typed.
//!
//! Owns the names, defaults and help of every argument; what they mean is each subcommand's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use distci_model::capability::{Kind, Label};
use distci_model::event::Source;
use distci_model::id::{Attempt, DeliveryId, JobId, NamePattern, SessionId, TaskName, WorkerName};
use distci_model::isolation::{Driver, ImageName};

use crate::connection::Connection;
use crate::open::Destination;
use crate::selector::Selector;

/// Most tasks that one worker runs at once.
const MAX_SLOTS: usize = 1000;

/// Continuous integration without a master.
///
/// Exit codes: 0 done or success, 1 build failed or input refused, 2 infrastructure or usage,
/// 3 cancelled, 4 not authenticated, 5 not found, 124 timed out, 130 interrupted, 141 nobody
/// reads the output.
#[derive(Debug, Parser)]
#[command(name = "distci", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run job files here and now, without a server
    Exec(Exec),
    /// Run everything in one process: store, frontend and workers
    Standalone(Standalone),
    /// Run a frontend over the store of a cluster, or over the one in the data folder
    Frontend(Frontend),
    /// Run a worker
    Worker(Worker),
    /// Start workers for what is wanted, each for one ticket
    Pool(Pool),
    /// Check what a store holds, and mend its indexes
    Fsck(Fsck),
    /// Copy the store of a data folder into a cluster
    Migrate(Migrate),
    /// Hurt a cluster under load, and judge whether it kept its promises
    Drill(Drill),
    /// Make, list and remove the images that tasks may run in on this machine
    #[command(subcommand)]
    Image(Image),
    /// List the jobs
    Jobs(Read),
    /// Set, get or remove a job
    #[command(subcommand)]
    Job(Job),
    /// List the repositories that are looked at for a job
    Polls(Polls),
    /// Check job files
    Lint(Lint),
    /// Ask for a build of a job
    Trigger(Trigger),
    /// List the builds of a job
    Builds(Builds),
    /// Show a build with its tasks
    Show(Show),
    /// Say why a build waits, or why it ended as it did
    Why(Show),
    /// Print the console of a build
    Logs(Logs),
    /// Tell all that happened in a build, or export it as a trace
    Events(Events),
    /// Open a page in the browser, signed in
    Open(Open),
    /// Search the consoles of many builds
    Grep(Grep),
    /// Ask builds to stop, or one task
    Cancel(Cancel),
    /// Ask for a build with the parameters of an earlier one, or for the rest of one
    Rerun(Rerun),
    /// Agree that a build goes on that asks
    Approve(Answer),
    /// Say no to a build that asks
    Reject(Answer),
    /// List or download the artifacts of a build
    Artifacts(Artifacts),
    /// List the tests of a build, or say how one has gone over builds
    Tests(Tests),
    /// List the tickets that wait for a worker
    Queue(Read),
    /// List the locks that are held, and who waits for them.
    Locks(Read),
    /// List the frontends that share the store
    Frontends(Read),
    /// Say how the cluster fares: servers, how long things take, the last faults
    Cluster(Read),
    /// List the workers, or ask some to leave
    Workers(Workers),
    /// List, show and replay webhooks that started no build; make a token for a generic one
    #[command(subcommand)]
    Webhook(Webhook),
    /// Show when a job's schedules come next
    Schedule(Schedule),
    /// Print the JSON Schema of job files
    Schema,
    /// Print the completions for a shell
    Completions(Completions),
}

/// `distci drill`
#[derive(Debug, Args)]
pub(crate) struct Drill {
    /// How long to hurt the cluster, such as 90s, 15m or 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "3m")]
    pub(crate) lasts: Duration,
    /// File with the faults that can be done, as docs/reliability.md describes it; none: load alone
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
    /// Clients that each have one build on its way
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) clients: u16,
    /// Draws the order of faults and builds [default: another each time]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Builds run on workers with this label only
    #[arg(long)]
    pub(crate) label: Option<Label>,
    /// Also write the report to a file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write all that was seen to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// Leave the jobs and builds of the drill in the cluster
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A list or a view without further arguments.
#[derive(Debug, Args)]
pub(crate) struct Read {
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub(crate) json: bool,
}

/// `events`
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// JOB#N, JOB (its latest), JOB@failed, or an address
    pub(crate) build: Selector,
    /// Go on until the build is over
    #[arg(short, long, conflicts_with = "format")]
    pub(crate) follow: bool,
    /// As text, as a trace for Chrome and Perfetto, or as one for an OpenTelemetry collector
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: EventsFormat,
    /// Print JSON, in the form of the API; with --follow one entry a line
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
}

/// How to print what happened.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum EventsFormat {
    /// One entry a line
    #[default]
    Text,
    /// Trace Event Format
    Chrome,
    /// OpenTelemetry protocol, JSON
    Otlp,
}

/// `open`
#[derive(Debug, Args)]
pub(crate) struct Open {
    /// JOB, JOB#N, JOB@success, JOB@failed, or a page: queue, workers, cluster; without it, all jobs
    #[arg(value_name = "WHAT")]
    pub(crate) what: Option<Destination>,
    /// Only print the address, which signs whoever opens it within a minute in
    #[arg(long)]
    pub(crate) print: bool,
}

/// `polls`
#[derive(Debug, Args)]
pub(crate) struct Polls {
    /// Name of the job
    pub(crate) job: JobId,
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub(crate) json: bool,
}

/// `exec`
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Job files; those that no other one triggers are built
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Value of a parameter
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) parameters: Vec<(String, String)>,
    /// Tasks that may run at once
    #[arg(long, default_value_t = default_slots(), value_name = "N", value_parser = slots)]
    pub(crate) slots: usize,
    /// Folder to download the artifacts of all builds to
    #[arg(long, value_name = "DIR")]
    pub(crate) artifacts: Option<PathBuf>,
    /// File that holds credentials for git, in the form of git's credential store
    #[arg(long, value_name = "FILE")]
    pub(crate) git_credentials: Option<PathBuf>,
    /// Print the builds as JSON at the end; the console goes to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

/// `standalone`
#[derive(Debug, Args)]
pub(crate) struct Standalone {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:7171", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Tasks that may run at once
    #[arg(long, default_value_t = default_slots(), value_name = "N", value_parser = slots)]
    pub(crate) slots: usize,
    /// Label that the worker carries, beside its system and architecture
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) labels: Vec<Label>,
    /// File that holds credentials for git, in the form of git's credential store
    #[arg(long, value_name = "FILE")]
    pub(crate) git_credentials: Option<PathBuf>,
    /// Take the webhooks of a forge (github, gitlab, gitea, bitbucket), whose secrets are in a file,
    /// one a line
    #[arg(long = "webhook-secret", value_name = "FORGE=FILE", value_parser = webhook_secret)]
    pub(crate) webhook_secrets: Vec<(Source, PathBuf)>,
    /// File that says which forges may be told how commits stand, and by which tokens
    #[arg(long, value_name = "FILE")]
    pub(crate) forges: Option<PathBuf>,
    /// Address at which people reach this: what forges link to begins with it
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
}

/// `frontend`
#[derive(Debug, Args)]
pub(crate) struct Frontend {
    /// Configuration: the cluster's ZooKeeper and S3, addresses, the token
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on; may be repeated, and counts more than the configuration [default:
    /// 127.0.0.1:7171]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Look whether everything that the configuration names can be used, say so, and leave
    #[arg(long)]
    pub(crate) check: bool,
    /// Print a configuration with everything that can be said, and leave
    #[arg(long, exclusive = true)]
    pub(crate) config_sample: bool,
}

/// `fsck`
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Configuration of a cluster's frontend; without it, the store of the data folder is checked
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Mend what follows from records: names, wake-ups
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `migrate`
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Data folder of the standalone or frontend, which must be stopped
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// Configuration of a frontend of the cluster, whose chroot and bucket are empty
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Print what was copied as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `worker`
#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Kind of task that it does; left out, all
    #[arg(long = "kind", value_name = "KIND")]
    pub(crate) kinds: Vec<Kind>,
    /// Tasks that may run at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = slots)]
    pub(crate) slots: usize,
    /// Label that it carries, beside its system and architecture
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) labels: Vec<Label>,
    /// Do one ticket, then leave
    #[arg(long)]
    pub(crate) once: bool,
    /// Leave when it has held nothing for so long: 90, 90s, 15m or 2h
    #[arg(long, value_name = "TIME", value_parser = idle)]
    pub(crate) idle: Option<Duration>,
    /// Its name; left out, the machine's with a random end
    #[arg(long, value_name = "NAME", env = "DISTCI_WORKER_NAME")]
    pub(crate) name: Option<WorkerName>,
    /// Which run of that name this is, if whoever starts it has to know; no two may be the same
    #[arg(long, value_name = "HEX8", env = "DISTCI_WORKER_SESSION", hide = true)]
    pub(crate) session: Option<SessionId>,
    /// Folder for workspaces and caches [default: distci/worker in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// File that holds credentials for git, in the form of git's credential store
    #[arg(long, value_name = "FILE")]
    pub(crate) git_credentials: Option<PathBuf>,
    /// File that says which forges may be told how commits stand, and by which tokens
    #[arg(long, value_name = "FILE")]
    pub(crate) forges: Option<PathBuf>,
}

/// `pool`
#[derive(Debug, Args)]
pub(crate) struct Pool {
    /// What to start: groups of workers, what they offer, how many there may be
    #[arg(value_name = "FILE", required_unless_present = "config_sample")]
    pub(crate) file: Option<PathBuf>,
    /// Folder of the pool's own [default: distci/pool/NAME in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Look whether every group can be started here, say so, and leave
    #[arg(long)]
    pub(crate) check: bool,
    /// Print a file with everything that can be said, and leave
    #[arg(long, exclusive = true)]
    pub(crate) config_sample: bool,
}

/// How a machine keeps tasks apart
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// Driver that tasks may use; left out, process and those of lxc, bubblewrap and podman that work
    /// here. There are qemu and docker too
    #[arg(long = "driver", value_name = "DRIVER")]
    pub(crate) drivers: Vec<Driver>,
    /// Folder of images [default: distci/images in the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Image for tasks that name none, where they may not use the driver process
    #[arg(long, value_name = "IMAGE")]
    pub(crate) default_image: Option<ImageName>,
}

/// `image`
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Make an image, from a description or from what options say
    Build(Box<ImageBuild>),
    /// List the images
    Ls(ImageRead),
    /// Show an image
    Show {
        /// Its name
        name: ImageName,
        #[command(flatten)]
        read: ImageRead,
    },
    /// Make the kernel that virtual machines boot, from the packages of the distribution
    Kernel(ImageRead),
    /// Remove images, at the latest when no cell uses them any more
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<ImageName>,
        #[command(flatten)]
        read: ImageRead,
    },
}

/// Where the images are, and how to speak of them.
#[derive(Debug, Args)]
pub(crate) struct ImageRead {
    /// Folder of images [default: distci/images in the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `image build`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("from").required(true))]
pub(crate) struct ImageBuild {
    /// Description of the image: JSON in which comments are allowed
    #[arg(group = "from")]
    pub(crate) file: Option<PathBuf>,
    /// A small Debian of this suite instead
    #[arg(long, value_name = "SUITE", group = "from")]
    pub(crate) debian: Option<String>,
    /// The root file system in this archive instead: a tar, compressed or not
    #[arg(long, value_name = "FILE", group = "from")]
    pub(crate) tar: Option<PathBuf>,
    /// This image of container tools instead: an archive, or a folder in OCI's layout
    #[arg(long, value_name = "PATH", group = "from")]
    pub(crate) oci: Option<PathBuf>,
    /// The machine's own busybox instead
    #[arg(long, group = "from")]
    pub(crate) busybox: bool,
    /// Package to install beside those that every Debian has
    #[arg(long = "package", value_name = "NAME", conflicts_with_all = ["file", "tar", "oci", "busybox"])]
    pub(crate) packages: Vec<String>,
    /// Archive to take packages from; left out, those of this machine
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "tar", "oci", "busybox"])]
    pub(crate) mirror: Option<String>,
    /// Command to run in it then, by a shell
    #[arg(long, value_name = "COMMAND", conflicts_with = "file")]
    pub(crate) run: Vec<String>,
    /// What commands find in their environment wherever the image is used
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, conflicts_with = "file")]
    pub(crate) env: Vec<(String, String)>,
    /// Its name; left out, the one in the description
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<ImageName>,
    #[command(flatten)]
    pub(crate) read: ImageRead,
}

/// `job`
#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Give a job the configuration in a file
    Set {
        /// Job file; `-` for standard input
        file: PathBuf,
        /// Only if the job still has this revision; 0 if it must not exist
        #[arg(long, value_name = "N")]
        if_revision: Option<u32>,
        /// Print JSON, in the form of the API
        #[arg(long)]
        json: bool,
    },
    /// Print the configuration of a job
    Get {
        /// Name of the job
        job: JobId,
        /// As it was at this revision
        #[arg(long, value_name = "N")]
        revision: Option<u32>,
        /// Print it with its revision, in the form of the API
        #[arg(long)]
        json: bool,
    },
    /// List the revisions of a job, the present one first
    History {
        /// Name of the job
        job: JobId,
        /// Most revisions to list
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = positive)]
        limit: usize,
        /// Print JSON, in the form of the API
        #[arg(long)]
        json: bool,
    },
    /// Print how the configuration of a job has changed
    Diff {
        /// Name of the job
        job: JobId,
        /// From this revision on
        #[arg(value_name = "A")]
        before: u32,
        /// To this one [default: the present one]
        #[arg(value_name = "B")]
        after: Option<u32>,
    },
    /// Remove a job with its builds
    Rm {
        /// Names of the jobs
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobId>,
    },
}

/// `lint`
#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Job files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The job file of the job that reads them from a repository: whether it lets them
    #[arg(long = "for", value_name = "FILE")]
    pub(crate) reader: Option<PathBuf>,
    /// Print the problems as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `schedule`
#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// Name of the job
    #[arg(required_unless_present = "file")]
    pub(crate) job: Option<JobId>,
    /// A job file instead, without asking anybody
    #[arg(long, value_name = "FILE", conflicts_with = "job")]
    pub(crate) file: Option<PathBuf>,
    /// How many times to show of each
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = positive)]
    pub(crate) next: usize,
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub(crate) json: bool,
}

/// `trigger`
#[derive(Debug, Args)]
pub(crate) struct Trigger {
    /// Name of the job
    pub(crate) job: JobId,
    /// Values of parameters
    #[arg(value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) parameters: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) following: Following,
}

/// What to do after a build was asked for.
#[derive(Debug, Args)]
pub(crate) struct Following {
    /// Show the build while it runs, and exit with its verdict
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How long to follow it: 90, 90s, 15m or 2h
    #[arg(long, requires = "follow", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print JSON, in the form of the API
    #[arg(long, conflicts_with = "follow")]
    pub(crate) json: bool,
}

/// `grep`
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own, as they are typed"
)]
pub(crate) struct Grep {
    /// What to look for: a regular expression
    pub(crate) pattern: String,
    /// Take the pattern as a text
    #[arg(short = 'F', long)]
    pub(crate) fixed: bool,
    /// Take upper and lower case as the same
    #[arg(short, long)]
    pub(crate) ignore_case: bool,
    /// Only these jobs: a name, or a pattern such as `web-*`
    #[arg(long, value_name = "PATTERN")]
    pub(crate) job: Option<String>,
    /// Only this task
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Option<TaskName>,
    /// Only builds that are not older than this, such as 90m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = days)]
    pub(crate) since: Option<Duration>,
    /// Only builds that did not succeed
    #[arg(long)]
    pub(crate) failed: bool,
    /// Most lines
    #[arg(short = 'n', long, default_value_t = 1000, value_name = "N", value_parser = positive)]
    pub(crate) limit: usize,
    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `builds`
#[derive(Debug, Args)]
pub(crate) struct Builds {
    /// Name of the job
    pub(crate) job: JobId,
    /// Most builds to list
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = positive)]
    pub(crate) limit: usize,
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub(crate) json: bool,
}

/// `show`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// JOB#N, JOB (its latest), JOB@success, JOB@failed, or an address
    pub(crate) build: Selector,
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub(crate) json: bool,
}

/// `logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// JOB#N, JOB (its latest), JOB@success, JOB@failed, or an address
    pub(crate) build: Selector,
    /// Go on until the build is over, and exit with its verdict
    #[arg(short, long, conflicts_with = "attempt")]
    pub(crate) follow: bool,
    /// Only this task; its bytes come as they are
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<TaskName>,
    /// Only this attempt; left out, all
    #[arg(long, value_name = "K", value_parser = attempt)]
    pub(crate) attempt: Option<Attempt>,
}

/// `cancel`
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// JOB#N, JOB (its latest), or an address
    #[arg(required = true, value_name = "BUILD")]
    pub(crate) builds: Vec<Selector>,
    /// Only this task; the build goes on as if it had failed
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<TaskName>,
}

/// `approve`, `reject`
#[derive(Debug, Args)]
pub(crate) struct Answer {
    /// JOB#N, JOB (its latest), or an address
    pub(crate) build: Selector,
    /// The task that asks; may be left out if only one does
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<TaskName>,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) comment: String,
}

/// `rerun`
#[derive(Debug, Args)]
pub(crate) struct Rerun {
    /// JOB#N, JOB (its latest), JOB@failed, or an address
    pub(crate) build: Selector,
    /// Keep what succeeded, and run the rest
    #[arg(long, conflicts_with = "from")]
    pub(crate) failed: bool,
    /// Keep what succeeded, but run this task and what comes after it
    #[arg(long, value_name = "TASK")]
    pub(crate) from: Option<TaskName>,
    #[command(flatten)]
    pub(crate) following: Following,
}

/// `artifacts`
#[derive(Debug, Args)]
pub(crate) struct Artifacts {
    /// JOB#N, JOB (its latest), JOB@success, or an address
    pub(crate) build: Selector,
    #[command(subcommand)]
    pub(crate) deed: Option<ArtifactsDeed>,
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do with artifacts, if not list them.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactsDeed {
    /// Download artifacts
    Get {
        /// Which: *, ?, […], {a,b}, ** for any folders, FOLDER/ for all in it; left out, all
        #[arg(value_name = "PATTERN")]
        patterns: Vec<String>,
        /// Folder to download to
        #[arg(short, long, default_value = ".", value_name = "DIR")]
        output: PathBuf,
    },
}

/// `workers`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Workers {
    #[command(subcommand)]
    pub(crate) deed: Option<WorkersDeed>,
    #[command(flatten)]
    pub(crate) read: Read,
}

/// What to do with workers, if not list them.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkersDeed {
    /// Ask workers to take no more tickets, to finish what they hold, and to leave
    Drain(Drain),
}

/// `workers drain`
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Names of workers; * stands for any characters, ? for one
    #[arg(required_unless_present = "all", value_name = "NAME")]
    pub(crate) patterns: Vec<NamePattern>,
    /// All that are there now
    #[arg(long, conflicts_with = "patterns")]
    pub(crate) all: bool,
    /// Wait until none of them holds anything that it held before
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait: 90, 90s, 15m or 2h
    #[arg(long, requires = "wait", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tests`
#[derive(Debug, Args)]
pub(crate) struct Tests {
    /// JOB#N, JOB (its latest), JOB@success, JOB@failed, or an address
    pub(crate) build: Selector,
    /// Only those that failed or could not be run to their end
    #[arg(long, conflicts_with = "history")]
    pub(crate) failed: bool,
    /// Only those of this task
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<TaskName>,
    /// Only the test of this name, or `SUITE::NAME`, with all that it said
    #[arg(long, value_name = "TEST")]
    pub(crate) name: Option<String>,
    /// How that test has gone in the latest builds of the job, whichever build is named
    #[arg(long, requires = "name")]
    pub(crate) history: bool,
    /// Most tests to list, or builds to look at
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N", value_parser = positive)]
    pub(crate) limit: usize,
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub(crate) json: bool,
}

/// `webhook`
#[derive(Debug, Subcommand)]
pub(crate) enum Webhook {
    /// List the deliveries of the last 30 days that started no build, or not all
    Ls {
        /// Most deliveries to list
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = positive)]
        limit: usize,
        /// Print JSON, in the form of the API
        #[arg(long)]
        json: bool,
    },
    /// Show a delivery with its body
    Show {
        /// Its id, as `ls` lists it
        id: DeliveryId,
        /// Print JSON, in the form of the API
        #[arg(long)]
        json: bool,
    },
    /// Offer deliveries to the jobs as they are now
    Replay {
        /// Their ids, as `ls` lists them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<DeliveryId>,
        /// Print JSON, in the form of the API
        #[arg(long)]
        json: bool,
    },
    /// Draw a token for a generic webhook, and print it with its SHA-256 for the job file
    Token {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

fn webhook_secret(text: &str) -> Result<(Source, PathBuf), String> {
    let expected = "expected FORGE=FILE; the forge is github, gitlab, gitea or bitbucket";
    let (forge, file) = text.split_once('=').ok_or(expected)?;
    let known = Source::FORGES.into_iter();
    let source = known.into_iter().find(|source| source.to_string() == forge);
    let source = source.filter(|_| !file.is_empty()).ok_or(expected)?;
    Ok((source, file.into()))
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a number from 1".to_owned())
}

/// Each slot costs memory and holds a request open, so a slip of the finger must not be obeyed.
fn slots(text: &str) -> Result<usize, String> {
    let number = positive(text).ok().filter(|number| *number <= MAX_SLOTS);
    number.ok_or_else(|| format!("expected a number from 1 to {MAX_SLOTS}"))
}

fn attempt(text: &str) -> Result<Attempt, String> {
    let number = text.parse::<u32>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| "expected a number from 1".to_owned())?;
    Ok(Attempt::new(number))
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let number: Option<u64> = number.parse().ok();
    let seconds = number.and_then(|number| number.checked_mul(unit));
    let seconds = seconds.ok_or_else(|| "expected a time such as 90s, 15m or 2h".to_owned())?;
    Ok(Duration::from_secs(seconds))
}

/// A worker that may never be idle would leave before it has claimed anything.
fn idle(text: &str) -> Result<Duration, String> {
    let time = duration(text).ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| "expected a time from 1s, such as 90s, 15m or 2h".to_owned())
}

/// A time that may be days.
fn days(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
    match days {
        Some(days @ 0..=36_500) => Ok(Duration::from_hours(24 * days)),
        Some(_) | None => {
            duration(text).map_err(|_| "expected a time such as 90m, 12h or 7d".to_owned())
        }
    }
}

/// One for each processor that this process may use.
fn default_slots() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.min(MAX_SLOTS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(words.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_manual_shows_can_be_typed() {
        for line in [
            "distci exec a.json b.json -p x=1 --slots 2 --artifacts out --data d",
            "distci standalone --listen 0.0.0.0:80 --label big",
            "distci standalone --webhook-secret github=a --webhook-secret gitea=b",
            "distci webhook ls -n 3 --json",
            "distci webhook replay 20261122T101530123-0123456789abcdef",
            "distci webhook token",
            "distci worker --url http://a --kind execute-shell --kind git-checkout --once",
            "distci worker --idle 15m --name a --session 0123abcd",
            "distci workers --json",
            "distci workers drain w1 build-* --wait --timeout 2h",
            "distci workers drain --all --json",
            "distci trigger hello k=v a=b=c --follow --timeout 15m",
            "distci logs hello#3 -f --task t",
            "distci logs hello --attempt 2",
            "distci artifacts hello#1",
            "distci artifacts hello#1 get",
            "distci artifacts hello#1 get dist/** -o out",
            "distci job set hello.json --if-revision 3",
            "distci job get hello --revision 2 --json",
            "distci job history hello -n 3 --json",
            "distci job diff hello 1",
            "distci job diff hello 1 2",
            "distci jobs --json --url http://a,http://b",
            "distci completions bash",
            "distci tests hello#3 --failed --task t --json",
            "distci tests hello --name a::b --history -n 20",
            "distci frontend --config f.toml --check --listen 0.0.0.0:1 --listen 0.0.0.0:2",
            "distci frontend --config-sample",
            "distci fsck --config f.toml --repair --json",
            "distci fsck --data d",
            "distci migrate --from d --config f.toml",
            "distci image build debian.json --name debian-12",
            "distci image build --debian bookworm --package git --package make --name debian-12",
            "distci image build --tar root.tar.zst --name x --run true --env A=b",
            "distci image build --oci image.tar --name x --images d --json",
            "distci image build --busybox --name tiny",
            "distci image ls --json",
            "distci image show debian-12",
            "distci image rm debian-12 tiny",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "distci exec",
            "distci frontend --config-sample --check",
            "distci migrate --from d",
            "distci image build",
            "distci image build a.json --tar b",
            "distci image build a.json --run true",
            "distci image build --tar b --package git --name x",
            "distci image build --busybox --name X",
            "distci image rm",
            "distci exec a.json -p x",
            "distci exec a.json --slots 0",
            "distci exec a.json --slots 1001",
            "distci standalone --slots 99999999",
            "distci worker --slots 99999999",
            "distci worker --kind cooking",
            "distci worker --idle 0",
            "distci workers drain",
            "distci workers drain --all w1",
            "distci workers drain a/b",
            "distci workers drain w1 --timeout 5m",
            "distci worker --idle soon",
            "distci worker --session 123",
            "distci trigger hello --timeout 5m",
            "distci trigger a/b",
            "distci job diff hello",
            "distci job history hello -n 0",
            "distci standalone --webhook-secret generic=a",
            "distci standalone --webhook-secret github=",
            "distci webhook show x",
            "distci logs hello#0",
            "distci tests hello --history",
        ] {
            assert!(parse(line).is_err(), "{line} was accepted");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert!(duration("h").is_err() && duration("1d").is_err() && duration("").is_err());
    }
}
