//! Identifiers as newtypes: constructors parse, fields are private, `Display` is the wire form.
//!
//! Owns the spelling and the derivation of every id. Derived ids (`JobKey`, `BuildKey`,
//! `TicketId`) are pure functions of what they name, so posting the same thing twice names it once.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::ticket::Duty;

/// Why a text is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {reason}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    reason: Cow<'static, str>,
}

impl InvalidId {
    fn new(what: &'static str, text: &str, reason: impl Into<Cow<'static, str>>) -> Self {
        // The message must stay readable when somebody sends a megabyte.
        let text = text.chars().take(80).collect();
        Self {
            what,
            text,
            reason: reason.into(),
        }
    }
}

/// Letters, digits, `.`, `_`, `-`, beginning with a letter or digit, at most `max` bytes.
fn check_name(what: &'static str, text: &str, max: usize) -> Result<(), InvalidId> {
    let refuse = |reason: Cow<'static, str>| Err(InvalidId::new(what, text, reason));
    match text.as_bytes() {
        [] => refuse("is empty".into()),
        bytes if bytes.len() > max => refuse(format!("has over {max} bytes").into()),
        [first, ..] if !first.is_ascii_alphanumeric() => {
            refuse("does not begin with a letter or digit".into())
        }
        bytes
            if bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b)) =>
        {
            Ok(())
        }
        _ => refuse("may hold only letters, digits, '.', '_' and '-'".into()),
    }
}

/// Letters, digits, `.`, `_`, `-`, `*` and `?`, at most 64 bytes.
fn check_pattern(what: &'static str, text: &str) -> Result<(), InvalidId> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-*?".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(known) {
        return Ok(());
    }
    let reason = "may hold 1 to 64 letters, digits, '.', '_', '-', '*' and '?'";
    Err(InvalidId::new(what, text, reason))
}

/// A fixed number of lower-case base-32 characters (`a`–`z`, `2`–`7`).
fn check_key(what: &'static str, text: &str, length: usize) -> Result<(), InvalidId> {
    let alphabet = |b: &u8| b.is_ascii_lowercase() || (b'2'..=b'7').contains(b);
    if text.len() == length && text.as_bytes().iter().all(alphabet) {
        Ok(())
    } else {
        Err(InvalidId::new(what, text, "has the wrong form"))
    }
}

fn check_hex(what: &'static str, text: &str, length: usize) -> Result<(), InvalidId> {
    let hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if text.len() == length && text.as_bytes().iter().all(hex) {
        Ok(())
    } else {
        Err(InvalidId::new(
            what,
            text,
            "has the wrong number of lower-case hex digits",
        ))
    }
}

/// The first `length` base-32 characters of the BLAKE3 hash of `parts`, each length-prefixed.
pub(crate) fn digest_text(context: &str, parts: &[&[u8]], length: usize) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut text = BASE32_NOPAD
        .encode(hasher.finalize().as_bytes())
        .to_lowercase();
    text.truncate(length);
    text
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// The wire form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&'static str, &str) -> Result<(), InvalidId> = $check;
                check($what, text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

text_id!(
    /// The name of a job, as its owner chose it.
    JobId, "job id", |what, text| check_name(what, text, 100)
);
text_id!(
    /// The name of a task, unique within its job.
    TaskName, "task name", |what, text| check_name(what, text, 64)
);
text_id!(
    /// The name that a worker gives itself; never registered anywhere.
    WorkerName, "worker name", |what, text| check_name(what, text, 64)
);
text_id!(
    /// A pattern of names of workers, in which `*` stands for any characters and `?` for any one; a
    /// name is a pattern, too.
    NamePattern, "pattern of workers", check_pattern
);
text_id!(
    /// A job in one incarnation: a deleted and re-created job has another key.
    JobKey, "job key", |what, text| check_key(what, text, 16)
);
text_id!(
    /// One build of one job key.
    BuildKey, "build key", |what, text| check_key(what, text, 16)
);
text_id!(
    /// One ticket within its build.
    TicketId, "ticket id", |what, text| check_key(what, text, 16)
);
text_id!(
    /// A lock, by the hash of what it is called.
    LockKey, "lock key", |what, text| check_key(what, text, 16)
);
text_id!(
    /// A capability class: the canonical form of a set of requirements.
    ClassId, "class id", |what, text| check_key(what, text, 10)
);
text_id!(
    /// A webhook's delivery that is kept: when it came and what it was,
    /// `20261122T101530123-0123456789abcdef`.
    DeliveryId, "id of a delivery", check_delivery
);
text_id!(
    /// One session of a frontend with the store; 12 hex digits.
    FrontendId, "frontend id", |what, text| check_hex(what, text, 12)
);
text_id!(
    /// One run of a worker's process: two that bear the same name are told apart by it; 8 hex digits.
    SessionId, "session id", |what, text| check_hex(what, text, 8)
);
text_id!(
    /// A 128-bit request id drawn by the client and kept across its retries; 32 hex digits.
    RequestId, "request id", |what, text| check_hex(what, text, 32)
);

impl JobKey {
    /// The key of `job` in its `incarnation`.
    pub fn derive(job: &JobId, incarnation: u32) -> Self {
        let parts: [&[u8]; 2] = [job.0.as_bytes(), &incarnation.to_le_bytes()];
        Self(digest_text("distci job key v1", &parts, 16))
    }

    /// The first eight characters, as index names carry them.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or_default()
    }
}

impl BuildKey {
    /// The key of build `number` of a job.
    pub fn derive(job: &JobKey, number: BuildNumber) -> Self {
        let parts: [&[u8]; 2] = [job.0.as_bytes(), &number.0.to_le_bytes()];
        Self(digest_text("distci build key v1", &parts, 16))
    }

    /// Where an errand is, which belongs to no build: no key of a build is like it.
    pub fn of_errand(cause: &str) -> Self {
        Self(digest_text("distci errand key v1", &[cause.as_bytes()], 16))
    }
}

impl TicketId {
    /// The id of the control ticket, the same in every build.
    pub fn control() -> Self {
        Self("a".repeat(16))
    }

    /// The id of every errand, which is the only ticket where it is.
    pub fn errand() -> Self {
        Self("b".repeat(16))
    }

    /// The id of run `run` (from 1) of a task.
    pub fn derive(build: &BuildKey, task: &TaskName, run: u32) -> Self {
        let parts: [&[u8]; 3] = [build.0.as_bytes(), task.0.as_bytes(), &run.to_le_bytes()];
        Self(digest_text("distci ticket id v1", &parts, 16))
    }

    /// Whether this is the build's control ticket.
    pub fn is_control(&self) -> bool {
        self.0.bytes().all(|b| b == b'a')
    }

    /// Whether this is an errand.
    pub fn is_errand(&self) -> bool {
        self.0.bytes().all(|b| b == b'b')
    }

    /// What such a ticket is for.
    pub fn duty(&self) -> Duty {
        if self.is_control() {
            Duty::Control
        } else if self.is_errand() {
            Duty::Errand
        } else {
            Duty::Task
        }
    }
}

impl LockKey {
    /// The lock that tasks of all jobs name so.
    pub fn of_task(name: &str) -> Self {
        Self::derive(&format!("lock:{name}"))
    }

    /// The lock of the builds of a job that count together.
    pub fn of_builds(job: &JobKey, group: &str) -> Self {
        Self::derive(&format!("job:{job}:{group}"))
    }

    fn derive(name: &str) -> Self {
        Self(digest_text("distci lock key v1", &[name.as_bytes()], 16))
    }
}

impl ClassId {
    /// The class of a canonical list of requirements.
    pub(crate) fn derive(requirements: &[u8]) -> Self {
        Self(digest_text("distci class v1", &[requirements], 10))
    }
}

impl RequestId {
    /// A request id from 16 random bytes; randomness is the caller's.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(HEXLOWER.encode(&bytes))
    }

    /// A request id that is a pure function of what it stands for: the same cause asks once.
    pub fn derive(cause: &str) -> Self {
        let mut bytes = [0; 16];
        let hash = blake3::derive_key("distci request id v1", cause.as_bytes());
        bytes.copy_from_slice(&hash[..16]);
        Self::from_random(bytes)
    }

    /// A request id of one run of a worker, by which its claims are known to be its own.
    pub fn in_session(session: &SessionId, random: [u8; 12]) -> Self {
        Self(format!("{session}{}", HEXLOWER.encode(&random)))
    }

    /// The session that the request belongs to, if it is a worker's.
    pub fn session(&self) -> SessionId {
        SessionId(self.0.get(..8).unwrap_or_default().to_owned())
    }

    /// The eight digits after the session's, as index names carry them.
    pub fn short(&self) -> &str {
        self.0.get(8..16).unwrap_or_default()
    }
}

fn check_delivery(what: &'static str, text: &str) -> Result<(), InvalidId> {
    let digits =
        |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    let whole = text.split_once('-').and_then(|(moment, mark)| {
        let (day, time) = moment.split_once('T')?;
        Some((day, time, mark))
    });
    match whole {
        Some((day, time, mark)) if digits(day, 8) && digits(time, 9) => {
            check_hex(what, mark, DELIVERY_MARK)
        }
        _ => Err(InvalidId::new(what, text, "has the wrong form")),
    }
}

/// Hex digits that tell deliveries apart.
const DELIVERY_MARK: usize = 16;

impl DeliveryId {
    /// The id of a delivery that came at `at`; `what` is the same whenever it is delivered again.
    pub fn derive(at: Timestamp, what: &str) -> Self {
        let hash = blake3::derive_key("distci delivery v1", what.as_bytes());
        let mark = HEXLOWER.encode(&hash[..DELIVERY_MARK / 2]);
        Self(format!("{}-{mark}", at.strftime("%Y%m%dT%H%M%S%3f")))
    }

    /// The day on which it came, eight digits.
    pub fn day(&self) -> &str {
        self.0.get(..8).unwrap_or_default()
    }

    /// What is the same whenever it is delivered again.
    pub fn mark(&self) -> &str {
        self.0.rsplit('-').next().unwrap_or_default()
    }
}

impl FrontendId {
    /// A frontend id from 6 random bytes; randomness is the caller's.
    pub fn from_random(bytes: [u8; 6]) -> Self {
        Self(HEXLOWER.encode(&bytes))
    }
}

impl SessionId {
    /// A session id from 4 random bytes; randomness is the caller's.
    pub fn from_random(bytes: [u8; 4]) -> Self {
        Self(HEXLOWER.encode(&bytes))
    }
}

/// One run of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerId {
    /// What people call it.
    pub name: WorkerName,
    /// Which run of it.
    pub session: SessionId,
}

impl WorkerId {
    /// First characters of a hash of both, as claim markers carry it.
    pub fn mark(&self) -> String {
        let parts = [self.name.0.as_bytes(), self.session.0.as_bytes()];
        digest_text("distci worker mark v1", &parts, 8)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.session)
    }
}

impl FromStr for WorkerId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (name, session) = text.split_once(' ').unwrap_or((text, ""));
        let (name, session) = (name.parse()?, session.parse()?);
        Ok(Self { name, session })
    }
}

/// The number of a build within its job, from 1, without gaps.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    ToSchema,
)]
pub struct BuildNumber(u64);

impl BuildNumber {
    /// The first build of every job.
    pub const FIRST: Self = Self(1);

    /// `None` for zero: numbers begin at 1.
    pub fn new(number: u64) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number of the build after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for BuildNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a claim of one ticket, from 1; 0 before the first. It is the fencing token.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
pub struct Attempt(u32);

impl Attempt {
    /// The attempt with this number.
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The attempt that the next claim begins.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A build as people write it: `job#7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct BuildRef {
    /// The job.
    pub job: JobId,
    /// The number of the build.
    pub number: BuildNumber,
}

/// A number as names have it: of the many ways to write one, the shortest is a name.
pub fn plain_number<N: FromStr>(text: &str) -> Option<N> {
    let short = text == "0" || !text.starts_with(['0', '+', '-']);
    text.parse().ok().filter(|_| short)
}

impl fmt::Display for BuildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.job, self.number)
    }
}

impl FromStr for BuildRef {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let wrong = || InvalidId::new("build", text, "is not of the form JOB#NUMBER");
        let (job, number) = text.rsplit_once('#').ok_or_else(wrong)?;
        let number = plain_number(number).and_then(BuildNumber::new);
        let number = number.ok_or_else(wrong)?;
        Ok(Self {
            job: job.parse()?,
            number,
        })
    }
}

/// Where a ticket is: its build and its id. Wire form `build.ticket`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TicketKey {
    /// The build that the ticket belongs to.
    pub build: BuildKey,
    /// The ticket within the build.
    pub ticket: TicketId,
}

impl utoipa::PartialSchema for TicketKey {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

impl ToSchema for TicketKey {}

impl TicketKey {
    /// The control ticket of `build`.
    pub fn control(build: BuildKey) -> Self {
        Self {
            build,
            ticket: TicketId::control(),
        }
    }

    /// The errand that stands for `cause`: the same cause is the same errand.
    pub fn errand(cause: &str) -> Self {
        Self {
            build: BuildKey::of_errand(cause),
            ticket: TicketId::errand(),
        }
    }
}

impl fmt::Display for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.build, self.ticket)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKey({self})")
    }
}

impl FromStr for TicketKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (build, ticket) = text
            .split_once('.')
            .ok_or_else(|| InvalidId::new("ticket", text, "is not of the form BUILD.TICKET"))?;
        Ok(Self {
            build: build.parse()?,
            ticket: ticket.parse()?,
        })
    }
}

impl TryFrom<String> for TicketKey {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<TicketKey> for String {
    fn from(key: TicketKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_never_names_a_path() {
        for bad in [
            "",
            "a/b",
            "..",
            ".hidden",
            "a b",
            "ä",
            "a#1",
            &"x".repeat(101),
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "distci", "Nightly-2.0_x", &"x".repeat(100)] {
            assert!(good.parse::<JobId>().is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn a_build_ref_reads_what_it_writes() {
        let text = "distci#42";
        assert_eq!(text.parse::<BuildRef>().unwrap().to_string(), text);
        for bad in ["distci", "distci#", "distci#0", "#3", "distci#x", "a/b#1"] {
            assert!(bad.parse::<BuildRef>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_delivery_is_known_by_its_moment_and_its_mark() {
        let at = "2026-11-22T10:15:30.1239Z".parse().unwrap();
        let id = DeliveryId::derive(at, "github 1");
        assert!(id.as_str().starts_with("20261122T101530123-"), "{id}");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(id.day(), "20261122");
        let later = DeliveryId::derive(Timestamp::UNIX_EPOCH, "github 1");
        assert_eq!(id.mark(), later.mark());
        for bad in [
            "",
            "a",
            "20261122-0123456789abcdef",
            "20261122T101530123-../../x",
        ] {
            assert!(bad.parse::<DeliveryId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_keys_differ_by_every_part() {
        let job: JobId = "j".parse().unwrap();
        assert_ne!(JobKey::derive(&job, 0), JobKey::derive(&job, 1));
        let key = JobKey::derive(&job, 0);
        let build = BuildKey::derive(&key, BuildNumber::FIRST);
        assert_ne!(build, BuildKey::derive(&key, BuildNumber::FIRST.next()));
        let task: TaskName = "t".parse().unwrap();
        assert_ne!(
            TicketId::derive(&build, &task, 1),
            TicketId::derive(&build, &task, 2)
        );
        assert_eq!(TicketId::control().duty(), Duty::Control);
        assert_eq!(TicketId::errand().duty(), Duty::Errand);
        assert_eq!(TicketId::derive(&build, &task, 1).duty(), Duty::Task);
    }
}
