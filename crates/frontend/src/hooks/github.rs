//! What GitHub tells.

use distci_model::event::{EventKind, Source};
use serde::Deserialize;

use super::draft::{Commit, Draft, changed, kind_of_push};
use super::{Told, UNKNOWN};

/// So many commits of a push are told at most; of a longer one, some files are not known.
const MAX_COMMITS: usize = 2048;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    action: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    before: Option<String>,
    after: Option<String>,
    created: Option<bool>,
    deleted: Option<bool>,
    forced: Option<bool>,
    compare: Option<String>,
    commits: Option<Vec<Commit>>,
    head_commit: Option<Commit>,
    repository: Option<Repository>,
    sender: Option<Named>,
    pull_request: Option<Pull>,
    label: Option<Named>,
    release: Option<Release>,
    merge_group: Option<MergeGroup>,
    check_run: Option<Check>,
    check_suite: Option<Check>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Repository {
    id: Option<u64>,
    html_url: Option<String>,
    clone_url: Option<String>,
    full_name: Option<String>,
}

/// A user by login, or a label by name.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    login: Option<String>,
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pull {
    number: Option<u64>,
    title: Option<String>,
    html_url: Option<String>,
    head: Option<End>,
    base: Option<End>,
    labels: Option<Vec<Named>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct End {
    #[serde(rename = "ref")]
    branch: Option<String>,
    sha: Option<String>,
    repo: Option<Repository>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Release {
    tag_name: Option<String>,
    target_commitish: Option<String>,
    name: Option<String>,
    html_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MergeGroup {
    head_sha: Option<String>,
    head_ref: Option<String>,
    base_sha: Option<String>,
    base_ref: Option<String>,
    head_commit: Option<Commit>,
}

/// A check run, which has its suite in it, or a suite.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Check {
    head_sha: Option<String>,
    head_branch: Option<String>,
    html_url: Option<String>,
    external_id: Option<String>,
    #[serde(rename = "check_suite")]
    suite: Option<Box<Check>>,
    pull_requests: Option<Vec<Pull>>,
}

pub(super) fn told(event: &str, body: &[u8]) -> Result<Told, serde_json::Error> {
    let read: fn(&Payload) -> Option<Told> = match event {
        "ping" => return Ok(Told::Ping),
        "create" | "delete" => return Ok(Told::Nothing("the push beside it tells the same")),
        "push" => push,
        "pull_request" => pull_request,
        "release" => release,
        "merge_group" => merge_group,
        "check_run" | "check_suite" => rerequest,
        _ => return Ok(Told::Nothing(UNKNOWN)),
    };
    let payload: Payload = serde_json::from_slice(body)?;
    Ok(read(&payload).unwrap_or(Told::Nothing("no trigger waits for this action")))
}

impl Payload {
    fn draft(&self, kind: EventKind) -> Draft {
        let repository = self.repository.as_ref();
        let page = repository.and_then(|repository| repository.html_url.as_deref());
        let clone_url = repository.and_then(|repository| repository.clone_url.as_deref());
        let sender = self.sender.as_ref();
        Draft::new(Source::Github, kind)
            .repository(page, clone_url)
            .fact("sender", sender.and_then(|sender| sender.login.as_deref()))
            .fact("action", self.action.as_deref())
    }

    fn is(&self, action: &str) -> bool {
        self.action.as_deref() == Some(action)
    }
}

fn push(payload: &Payload) -> Option<Told> {
    let full = payload.reference.as_deref()?;
    let deleted = payload.deleted.unwrap_or(false);
    let (created, forced) = (
        payload.created.unwrap_or(false),
        payload.forced.unwrap_or(false),
    );
    let commits = payload.commits.as_deref().unwrap_or_default();
    // Of a new or forced ref, the commits are not all that differs.
    let whole = !created && !forced && !deleted && commits.len() < MAX_COMMITS;
    let head = payload.head_commit.as_ref();
    let draft = payload
        .draft(kind_of_push(full, deleted))
        .reference(Some(full))
        .commit("sha", payload.after.as_deref())
        .commit("before", payload.before.as_deref())
        .message(head.and_then(|head| head.message.as_deref()))
        .fact("url", payload.compare.as_deref())
        .flag("forced", forced)
        .flag("created", created)
        .paths(whole.then(|| changed(commits)).flatten());
    Some(draft.told())
}

fn pull_request(payload: &Payload) -> Option<Told> {
    let pull = payload.pull_request.as_ref()?;
    let (head, base) = (pull.head.as_ref()?, pull.base.as_ref()?);
    let number = pull.number?.to_string();
    let full = format!("refs/pull/{number}/head");
    let labels = pull.labels.as_deref().unwrap_or_default();
    let label = payload.label.as_ref();
    let from = head.repo.as_ref();
    let draft = payload
        .draft(EventKind::PullRequest)
        .fact("ref", Some(&full))
        .fact("pr", Some(&number))
        .fact("branch", base.branch.as_deref())
        .commit("sha", head.sha.as_deref())
        .commit("before", payload.before.as_deref())
        .commit("base_sha", base.sha.as_deref())
        .fact("head_branch", head.branch.as_deref())
        .fact(
            "head_repository",
            from.and_then(|from| from.full_name.as_deref()),
        )
        .flag("fork", is_fork(head, base))
        .fact("label", label.and_then(|label| label.name.as_deref()))
        .fact("title", pull.title.as_deref())
        .fact("url", pull.html_url.as_deref())
        .labels(labels.iter().filter_map(|label| label.name.as_deref()));
    Some(draft.told())
}

/// A repository that is gone, or is not told, is somebody else's.
fn is_fork(head: &End, base: &End) -> bool {
    let id = |end: &End| end.repo.as_ref().and_then(|repository| repository.id);
    id(head).is_none() || id(head) != id(base)
}

fn release(payload: &Payload) -> Option<Told> {
    let release = payload
        .release
        .as_ref()
        .filter(|_| payload.is("published"))?;
    let full = format!("refs/tags/{}", release.tag_name.as_deref()?);
    let target = release.target_commitish.as_deref();
    // Most often it is a branch, which may have moved on since.
    let sha = target.filter(|at| at.len() == 40 && at.bytes().all(|b| b.is_ascii_hexdigit()));
    let draft = payload
        .draft(EventKind::Release)
        .reference(Some(&full))
        .commit("sha", sha)
        .fact("title", release.name.as_deref())
        .fact("url", release.html_url.as_deref());
    Some(draft.told())
}

fn merge_group(payload: &Payload) -> Option<Told> {
    let asked = payload.is("checks_requested");
    let group = payload.merge_group.as_ref().filter(|_| asked)?;
    let into = group.base_ref.as_deref()?;
    let commit = group.head_commit.as_ref();
    let draft = payload
        .draft(EventKind::MergeGroup)
        .fact("ref", group.head_ref.as_deref())
        .fact(
            "branch",
            Some(into.strip_prefix("refs/heads/").unwrap_or(into)),
        )
        .commit("sha", group.head_sha.as_deref())
        .commit("base_sha", group.base_sha.as_deref())
        .message(commit.and_then(|commit| commit.message.as_deref()));
    Some(draft.told())
}

fn rerequest(payload: &Payload) -> Option<Told> {
    let check = payload.check_run.as_ref().or(payload.check_suite.as_ref());
    let check = check.filter(|_| payload.is("rerequested"))?;
    let suite = check.suite.as_deref().unwrap_or(check);
    let branch = suite.head_branch.as_deref();
    let full = branch.map(|branch| format!("refs/heads/{branch}"));
    let pulls = check.pull_requests.as_deref().unwrap_or_default();
    let number = pulls.first().and_then(|pull| pull.number);
    let draft = payload
        .draft(EventKind::Rerequest)
        .reference(full.as_deref())
        .commit("sha", check.head_sha.as_deref())
        .fact("pr", number.map(|number| number.to_string()).as_deref())
        .fact("check", check.external_id.as_deref())
        .fact("url", check.html_url.as_deref())
        // Of commits that are on no branch of this repository, GitHub tells no branch.
        .flag("fork", branch.is_none());
    Some(draft.told())
}
