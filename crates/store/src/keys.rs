//! The map of the store: the only file that spells a path or a key.
//!
//! Owns how nodes and blobs are called and how index names are read back. Everything here is a pure
//! function; `docs/znodes.md` is its prose. Invariant: no name is ever used for two things (R1), so
//! what is deleted never comes back. Slots of locks alone do: `docs/znodes.md` says why they may.

use distci_model::cache::CacheScope;
use distci_model::capability::Capabilities;
use distci_model::drain::DrainOrder;
use distci_model::id::{
    Attempt, BuildKey, BuildNumber, ClassId, DeliveryId, FrontendId, JobId, JobKey, LockKey,
    RequestId, TicketId, TicketKey, plain_number,
};
use distci_model::lock::Slot;
use distci_model::ticket::{ClaimName, DueName, Duty, IndexName, Priority, QueueName, Stamp};

use crate::blobs::BlobKey;
use crate::coordination::NodePath;

/// Number of shards of each tree: no directory grows beyond what one listing may hold.
pub const SHARDS: u16 = 256;

fn dir(name: &str) -> NodePath {
    NodePath::root().join(name)
}

fn shard(text: &str) -> String {
    let hash = blake3::derive_key("distci shard v1", text.as_bytes());
    format!("{:02x}", hash[0])
}

/// The names of all shards.
pub fn shards() -> impl Iterator<Item = String> {
    (0..SHARDS).map(|shard| format!("{shard:02x}"))
}

/// Where the frontends are.
pub fn members() -> NodePath {
    dir("fe")
}

/// A frontend's card.
pub fn member(frontend: &FrontendId) -> NodePath {
    members().join(frontend.as_str())
}

/// Where the frontends name the claims that they hear of.
pub fn digests() -> NodePath {
    dir("beat")
}

/// One node of a frontend's digest.
pub fn digest(frontend: &FrontendId, turn: u64, part: usize) -> NodePath {
    digests().join(&format!("{frontend}.{turn}.{part}"))
}

/// Where workers are asked to leave.
pub fn drains() -> NodePath {
    dir("drain")
}

/// A drain order: the node's name says everything.
pub fn drain(order: &DrainOrder) -> NodePath {
    let stamp = Stamp::at(order.at).millis();
    drains().join(&format!("{stamp:013}.{}", order.pattern))
}

/// Reads the name of a drain order back; `None` for what nobody of this version wrote.
pub fn parse_drain(name: &str) -> Option<DrainOrder> {
    let (stamp, pattern) = name.split_once('.')?;
    let order = DrainOrder {
        at: Stamp::from_millis(stamp.parse().ok()?).time(),
        pattern: pattern.parse().ok()?,
    };
    // Of the many ways to write a number, one is a name.
    (drain(&order).name() == name).then_some(order)
}

/// What the store says of itself.
pub fn meta() -> NodePath {
    dir("meta")
}

/// The trees whose directories are the shards.
pub fn sharded_trees() -> [NodePath; 9] {
    [
        jobs(),
        timetables(),
        builds(),
        errands(),
        queue(),
        claims(),
        timers(),
        locks(),
        watchers(),
    ]
}

/// All trees.
pub fn trees() -> Vec<NodePath> {
    let mut trees = sharded_trees().to_vec();
    trees.extend([classes(), members(), digests(), drains()]);
    trees
}

/// Whether a node of this name belongs at the top.
pub fn is_top(name: &str) -> bool {
    let known = trees().into_iter().chain([meta()]);
    known.into_iter().any(|path| path.name() == name)
}

/// Whether this is the name of a shard.
pub fn is_shard(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where all jobs are.
pub fn jobs() -> NodePath {
    dir("j")
}

/// A job's node.
pub fn job(job: &JobId) -> NodePath {
    jobs().join(&shard(job.as_str())).join(job.as_str())
}

/// A job's numbers: the next build, recent triggers, recent builds.
pub fn numbers(id: &JobId) -> NodePath {
    job(id).join("n")
}

/// The job whose node or numbers are at `path`, which may be a shard.
pub fn job_of(path: &NodePath) -> Option<JobId> {
    let own = |path: &NodePath| path.name().parse().ok().filter(|id| job(id) == *path);
    own(path).or_else(|| path.parent().and_then(|parent| own(&parent)))
}

/// Where the jobs are named that wait for events of repositories.
pub fn watchers() -> NodePath {
    dir("r")
}

/// What a repository is known by, by its host and path.
pub fn repository_mark(repository: &str) -> String {
    let hash = blake3::derive_key("distci repository v1", repository.as_bytes());
    blake3::Hash::from(hash).to_hex()[..16].to_owned()
}

/// The directory in which all jobs are named that wait for events of a repository.
pub fn watchers_of(mark: &str) -> NodePath {
    watchers().join(&shard(mark))
}

/// There as long as a job waits for events of a repository.
pub fn watcher(mark: &str, job: &JobId) -> NodePath {
    watchers_of(mark).join(&format!("{mark}.{job}"))
}

/// The mark and the job of a watcher's name.
pub fn parse_watcher(name: &str) -> Option<(&str, JobId)> {
    let (mark, job) = name.split_once('.')?;
    Some((mark, job.parse().ok()?))
}

/// Where the schedules of all jobs are.
pub fn timetables() -> NodePath {
    dir("t")
}

/// The schedules of a job.
pub fn timetable(job: &JobId) -> NodePath {
    timetables().join(&shard(job.as_str())).join(job.as_str())
}

/// Where all builds that are not archived are.
pub fn builds() -> NodePath {
    dir("b")
}

/// The anchor of a build's control ticket.
pub fn build(key: &BuildKey) -> NodePath {
    builds().join(&shard(key.as_str())).join(key.as_str())
}

/// A build's mailbox: its version tells that there is news.
pub fn mailbox(key: &BuildKey) -> NodePath {
    build(key).join("m")
}

/// There if somebody asked to cancel the build.
pub fn cancel_flag(key: &BuildKey) -> NodePath {
    build(key).join("x")
}

/// What people want of the tasks of a build; there once they want anything.
pub fn wishes(key: &BuildKey) -> NodePath {
    build(key).join("w")
}

/// The anchor of any ticket.
pub fn anchor(key: &TicketKey) -> NodePath {
    match key.ticket.duty() {
        Duty::Control => build(&key.build),
        Duty::Task => build(&key.build).join(key.ticket.as_str()),
        Duty::Errand => errand(&key.build),
    }
}

/// Where all errands are.
pub fn errands() -> NodePath {
    dir("e")
}

/// The anchor of an errand, by the key that stands in a build's place.
pub fn errand(key: &BuildKey) -> NodePath {
    errands().join(&shard(key.as_str())).join(key.as_str())
}

/// Where all classes are.
pub fn classes() -> NodePath {
    dir("cls")
}

/// The requirements of a class in clear.
pub fn class(class: &ClassId) -> NodePath {
    classes().join(class.as_str())
}

/// The queue index.
pub fn queue() -> NodePath {
    dir("q")
}

/// The claim index.
pub fn claims() -> NodePath {
    dir("c")
}

/// The index of those that wait for a time.
pub fn timers() -> NodePath {
    dir("d")
}

/// Where an index entry is.
pub fn index(name: &IndexName) -> NodePath {
    match name {
        IndexName::Queue(entry) => {
            let QueueName {
                priority,
                class,
                stamp,
                job,
                key,
                version,
            } = entry;
            let (priority, stamp) = (priority.get(), stamp.millis());
            let name = format!("{priority}.{class}.{stamp:013}.{job}.{key}.{version}");
            queue().join(&shard(key.build.as_str())).join(&name)
        }
        IndexName::Claim(marker) => {
            let ClaimName {
                key,
                attempt,
                control,
                worker,
                request,
                job,
                class,
                cancel,
            } = marker;
            let duty = if *control { 'c' } else { 't' };
            let cancel = if *cancel { ".x" } else { "" };
            let name = format!("{key}.{attempt}.{duty}.{worker}.{request}.{job}.{class}{cancel}");
            claims().join(&shard(key.build.as_str())).join(&name)
        }
        IndexName::Due(DueName { due, key, version }) => {
            let name = format!("{due:013}.{key}.{version}", due = due.millis());
            timers().join(&shard(key.build.as_str())).join(&name)
        }
    }
}

/// A time as names have it: thirteen digits, and more only from the year 2286 on.
fn stamp(text: &str) -> Option<Stamp> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = text.len() == 13 || text.len() > 13 && !text.starts_with('0');
    (digits && fits).then(|| text.parse().ok().map(Stamp::from_millis))?
}

/// Reads the name of a queue entry back; `None` for what nobody of this version wrote.
pub fn parse_queue(name: &str) -> Option<QueueName> {
    let mut parts = name.split('.');
    let mut next = || parts.next();
    let priority = Priority::new(plain_number(next()?)?)?;
    let class = next()?.parse().ok()?;
    let stamp = stamp(next()?)?;
    let job = next()?.to_owned();
    let key = TicketKey {
        build: next()?.parse().ok()?,
        ticket: next()?.parse().ok()?,
    };
    let version = plain_number(next()?)?;
    next().is_none().then_some(QueueName {
        priority,
        class,
        stamp,
        job,
        key,
        version,
    })
}

/// Reads the name of a claim marker back; `None` for what nobody of this version wrote.
pub fn parse_claim(name: &str) -> Option<ClaimName> {
    let mut parts = name.split('.');
    let mut next = || parts.next();
    let key = TicketKey {
        build: next()?.parse().ok()?,
        ticket: next()?.parse().ok()?,
    };
    let attempt = Attempt::new(plain_number(next()?)?);
    let control = match next()? {
        "c" => true,
        "t" => false,
        _ => return None,
    };
    let (worker, request, job) = (next()?.to_owned(), next()?.to_owned(), next()?.to_owned());
    let class = next()?.parse().ok()?;
    let cancel = match next() {
        None => false,
        Some("x") => true,
        Some(_) => return None,
    };
    next().is_none().then_some(ClaimName {
        key,
        attempt,
        control,
        worker,
        request,
        job,
        class,
        cancel,
    })
}

/// Reads the name of a timer back; `None` for what nobody of this version wrote.
pub fn parse_due(name: &str) -> Option<DueName> {
    let mut parts = name.split('.');
    let mut next = || parts.next();
    let due = stamp(next()?)?;
    let key = TicketKey {
        build: next()?.parse().ok()?,
        ticket: next()?.parse().ok()?,
    };
    let version = plain_number(next()?)?;
    next().is_none().then_some(DueName { due, key, version })
}

/// Where the slots of all locks are.
pub fn locks() -> NodePath {
    dir("s")
}

/// Where the slots of a lock are, among those of others.
pub fn lock_shard(lock: &LockKey) -> NodePath {
    locks().join(&shard(lock.as_str()))
}

/// A slot of a lock: there as long as somebody holds it.
pub fn slot(slot: &Slot) -> NodePath {
    let Slot { lock, slot } = slot;
    lock_shard(lock).join(&format!("{lock}.{slot}"))
}

/// Reads the name of a slot back; `None` for what nobody of this version wrote.
pub fn parse_slot(name: &str) -> Option<Slot> {
    let (lock, slot) = name.split_once('.')?;
    let slot = Slot {
        lock: lock.parse().ok()?,
        slot: slot.parse().ok()?,
    };
    // Of the many ways to write a number, one is a name.
    (format!("{}.{}", slot.lock, slot.slot) == name).then_some(slot)
}

/// What a trigger request is remembered by.
pub fn request_mark(request: &RequestId) -> String {
    request.as_str().chars().take(24).collect()
}

/// Where the configurations of a job are.
pub fn configs(job: &JobKey) -> BlobKey {
    BlobKey::top("cfg").join(job.as_str())
}

/// One revision of a job's configuration.
pub fn config(job: &JobKey, revision: u32, hash: &str) -> BlobKey {
    configs(job).join(&format!("{revision}-{hash}"))
}

/// The list of the revisions before one.
pub fn before(job: &JobKey, revision: u32) -> BlobKey {
    configs(job).join(&format!("before-{revision}"))
}

/// Where all blobs are: configurations, builds, history, caches.
pub fn blob_trees() -> [BlobKey; 4] {
    ["cfg", "b", "h", "cch"].map(BlobKey::top)
}

/// Nothing: nobody ever stores a blob there.
pub(crate) fn no_blob() -> BlobKey {
    BlobKey::top("none")
}

/// Where the blobs of a job are: its configurations, its builds, its history, its caches.
pub fn job_blobs(job: &JobKey) -> [BlobKey; 4] {
    blob_trees().map(|tree| tree.join(job.as_str()))
}

/// A build, as the blobs are keyed.
fn build_blobs(job: &JobKey, number: BuildNumber) -> BlobKey {
    BlobKey::top("b")
        .join(job.as_str())
        .join(&number.to_string())
}

/// The record of an archived build.
pub fn record(job: &JobKey, number: BuildNumber) -> BlobKey {
    build_blobs(job, number).join("record")
}

/// One attempt of a ticket, as its blobs are keyed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttemptBlobs {
    /// The job.
    pub job: JobKey,
    /// The build.
    pub number: BuildNumber,
    /// The ticket.
    pub ticket: TicketId,
    /// The attempt.
    pub attempt: Attempt,
}

impl AttemptBlobs {
    fn key(&self, tree: &str) -> BlobKey {
        let name = format!("{}.{}", self.ticket, self.attempt);
        build_blobs(&self.job, self.number).join(tree).join(&name)
    }

    /// Where the console's chunks are.
    pub fn console(&self) -> BlobKey {
        self.key("log")
    }

    /// The chunk of the console that begins at byte `offset`.
    pub fn console_chunk(&self, offset: u64) -> BlobKey {
        self.console().join(&format!("{offset:012x}"))
    }

    /// The layer of the workspace.
    pub fn layer(&self) -> BlobKey {
        self.key("ws")
    }

    /// The content of an artifact.
    pub fn artifact(&self, index: usize) -> BlobKey {
        self.key("art").join(&index.to_string())
    }

    /// The names and digests of the artifacts.
    pub fn artifact_manifest(&self) -> BlobKey {
        self.key("art").join("manifest")
    }

    /// What the task says about itself.
    pub fn summary(&self) -> BlobKey {
        self.key("sum")
    }

    /// What its tests came to.
    pub fn tests(&self) -> BlobKey {
        self.key("tst")
    }

    /// How many lines are in which chunk of the console.
    pub fn console_lines(&self) -> BlobKey {
        self.key("lin")
    }
}

/// One state of a cache, as one attempt left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// The scope, as [`CacheScope`] writes it.
    pub scope: String,
    /// The name of the cache.
    pub name: String,
    /// Who wrote it: `BUILD.TICKET.ATTEMPT`; later builds come later.
    pub id: String,
}

impl CacheEntry {
    /// What this attempt may write; `None` if that is no name of a cache.
    pub fn new(scope: &CacheScope, name: &str, blobs: &AttemptBlobs) -> Option<Self> {
        let AttemptBlobs {
            number,
            ticket,
            attempt,
            ..
        } = blobs;
        let id = format!("{:010}.{ticket}.{attempt}", number.get());
        Self::of(&scope.to_string(), name, &id)
    }

    /// The parts of an entry, as somebody tells them.
    pub fn of(scope: &str, name: &str, id: &str) -> Option<Self> {
        let fits = |part: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            (1..=128).contains(&part.len())
                && part.bytes().all(plain)
                && part.trim_matches('.') == part
        };
        [scope, name, id].into_iter().all(fits).then(|| Self {
            scope: scope.to_owned(),
            name: name.to_owned(),
            id: id.to_owned(),
        })
    }

    /// The entry of a blob, from its name below [`caches`].
    pub fn parse(blob: &str) -> Option<Self> {
        let mut parts = blob.split('/');
        let (scope, name, id) = (parts.next()?, parts.next()?, parts.next()?);
        Self::of(scope, name, id)
    }

    /// Whether every build of the job may read it.
    pub fn is_trusted(&self) -> bool {
        self.scope.starts_with("t-")
    }
}

/// Where the caches of a job are.
pub fn caches(job: &JobKey) -> BlobKey {
    BlobKey::top("cch").join(job.as_str())
}

/// Where one entry of a cache is, alone.
pub fn cache_folder(job: &JobKey, entry: &CacheEntry) -> BlobKey {
    caches(job)
        .join(&entry.scope)
        .join(&entry.name)
        .join(&entry.id)
}

/// One entry of a cache.
pub fn cache(job: &JobKey, entry: &CacheEntry) -> BlobKey {
    cache_folder(job, entry).join("layer")
}

/// The offset of the console chunk of this name.
pub fn parse_chunk(name: &str) -> Option<u64> {
    u64::from_str_radix(name, 16).ok()
}

/// A page of a job's history.
pub fn history_page(job: &JobKey, page: u64) -> BlobKey {
    BlobKey::top("h").join(job.as_str()).join(&page.to_string())
}

/// Where the deliveries of a day, eight digits, are kept.
pub fn deliveries(day: &str) -> BlobKey {
    BlobKey::top("hook").join(day)
}

/// What is known of a kept delivery.
pub fn delivery_head(id: &DeliveryId) -> BlobKey {
    deliveries(id.day()).join(&format!("{id}.head"))
}

/// The body of a kept delivery.
pub fn delivery_body(id: &DeliveryId) -> BlobKey {
    deliveries(id.day()).join(&format!("{id}.body"))
}

/// The delivery whose head has this name.
pub fn parse_delivery_head(name: &str) -> Option<DeliveryId> {
    name.strip_suffix(".head")?.parse().ok()
}

/// The payload of a class node.
pub fn class_payload(requires: &Capabilities) -> Vec<u8> {
    requires.to_string().into_bytes()
}

/// Reads the payload of a class node back.
pub fn parse_class(payload: &[u8]) -> Option<Capabilities> {
    let text = std::str::from_utf8(payload).ok()?;
    text.split(' ').map(|member| member.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use distci_model::capability::Kind;

    fn key() -> TicketKey {
        let job = JobKey::derive(&"j".parse().unwrap(), 0);
        let build = BuildKey::derive(&job, BuildNumber::FIRST);
        let ticket = TicketId::derive(&build, &"t".parse().unwrap(), 1);
        TicketKey { build, ticket }
    }

    #[test]
    fn index_names_read_what_they_write() {
        let class = Capabilities::control().class();
        let queue = QueueName {
            priority: Priority::CONTROL,
            class: class.clone(),
            stamp: Stamp::from_millis(1_700_000_000_000),
            job: "abcdefgh".into(),
            key: key(),
            version: 3,
        };
        let path = index(&IndexName::Queue(queue.clone()));
        assert_eq!(parse_queue(path.name()), Some(queue));
        for cancel in [false, true] {
            let claim = ClaimName {
                key: key(),
                attempt: Attempt::new(2),
                control: false,
                worker: "abcdefgh".into(),
                request: "0123abcd".into(),
                job: "abcdefgh".into(),
                class: class.clone(),
                cancel,
            };
            let path = index(&IndexName::Claim(claim.clone()));
            assert_eq!(parse_claim(path.name()), Some(claim));
        }
        let due = DueName {
            due: Stamp::from_millis(1_700_000_000_000),
            key: key(),
            version: 5,
        };
        let path = index(&IndexName::Due(due.clone()));
        assert_eq!(parse_due(path.name()), Some(due));
        assert_eq!(parse_due("1700000000000"), None);
        assert_eq!(parse_queue("0.x"), None);
        assert_eq!(parse_claim("nonsense"), None);
    }

    #[test]
    fn slots_read_what_they_write() {
        let lock = LockKey::of_task("deploy");
        let held = Slot { lock, slot: 999 };
        assert_eq!(parse_slot(slot(&held).name()), Some(held.clone()));
        for bad in [
            "",
            "x",
            "x.1",
            &format!("{}.01", held.lock),
            &format!("{}.", held.lock),
        ] {
            assert_eq!(parse_slot(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn drain_orders_read_what_they_write() {
        let at = Stamp::from_millis(1_700_000_000_000).time();
        for pattern in ["w-1.example.org", "*", "a?b*"] {
            let order = DrainOrder::new(pattern.parse().unwrap(), at);
            assert_eq!(parse_drain(drain(&order).name()), Some(order));
        }
        for bad in ["", "x", "1.w", "1700000000000.", "1700000000000.a b", "x.w"] {
            assert_eq!(parse_drain(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn classes_read_what_they_write() {
        let requires = Capabilities::task(Kind::ExecuteShell, &["linux".parse().unwrap()]);
        assert_eq!(parse_class(&class_payload(&requires)), Some(requires));
    }
}
