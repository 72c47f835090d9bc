//! What GitLab tells.

use distci_model::event::{EventKind, Source};
use serde::Deserialize;

use super::draft::{Commit, Draft, changed, is_no_commit, kind_of_push};
use super::{Told, UNKNOWN};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    object_kind: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    #[serde(rename = "ref")]
    reference: Option<String>,
    before: Option<String>,
    after: Option<String>,
    commits: Option<Vec<Commit>>,
    total_commits_count: Option<u64>,
    user_username: Option<String>,
    project: Option<Project>,
    // Merge requests.
    user: Option<User>,
    object_attributes: Option<Merge>,
    labels: Option<Vec<Label>>,
    changes: Option<Changes>,
    // Releases.
    action: Option<String>,
    tag: Option<String>,
    name: Option<String>,
    url: Option<String>,
    commit: Option<Commit>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Project {
    web_url: Option<String>,
    git_http_url: Option<String>,
    path_with_namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Merge {
    iid: Option<u64>,
    action: Option<String>,
    title: Option<String>,
    url: Option<String>,
    source_branch: Option<String>,
    target_branch: Option<String>,
    source_project_id: Option<u64>,
    target_project_id: Option<u64>,
    source: Option<Project>,
    last_commit: Option<Commit>,
    oldrev: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Label {
    title: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Changes {
    labels: Option<LabelChange>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LabelChange {
    previous: Option<Vec<Label>>,
    current: Option<Vec<Label>>,
}

/// The body itself says what it is; the header says it in words that have changed over time.
pub(super) fn told(body: &[u8]) -> Result<Told, serde_json::Error> {
    let kind: Kind = serde_json::from_slice(body)?;
    let read: fn(&Payload) -> Option<Told> = match kind.object_kind.as_deref() {
        Some("push" | "tag_push") => push,
        Some("merge_request") => merge_request,
        Some("release") => release,
        _ => return Ok(Told::Nothing(UNKNOWN)),
    };
    let payload: Payload = serde_json::from_slice(body)?;
    Ok(read(&payload).unwrap_or(Told::Nothing("no trigger waits for this action")))
}

impl Payload {
    fn draft(&self, kind: EventKind) -> Draft {
        let project = self.project.as_ref();
        let user = self.user.as_ref().and_then(|user| user.username.as_deref());
        Draft::new(Source::Gitlab, kind)
            .repository(
                project.and_then(|project| project.web_url.as_deref()),
                project.and_then(|project| project.git_http_url.as_deref()),
            )
            .fact("sender", self.user_username.as_deref().or(user))
    }
}

fn push(payload: &Payload) -> Option<Told> {
    let full = payload.reference.as_deref()?;
    let (before, after) = (payload.before.as_deref()?, payload.after.as_deref()?);
    let (created, deleted) = (is_no_commit(before), is_no_commit(after));
    let commits = payload.commits.as_deref().unwrap_or_default();
    // At most twenty commits are told, and how many there are.
    let whole = payload.total_commits_count == Some(commits.len() as u64) && !created && !deleted;
    let head = commits
        .iter()
        .find(|commit| commit.id.as_deref() == Some(after));
    let draft = payload
        .draft(kind_of_push(full, deleted))
        .reference(Some(full))
        .commit("sha", Some(after))
        .commit("before", Some(before))
        .message(head.and_then(|head| head.message.as_deref()))
        .flag("created", created)
        // A push that goes back has no commits, which says nothing of what it changes.
        .paths(
            (whole && !commits.is_empty())
                .then(|| changed(commits))
                .flatten(),
        );
    Some(draft.told())
}

fn merge_request(payload: &Payload) -> Option<Told> {
    let merge = payload.object_attributes.as_ref()?;
    let number = merge.iid?.to_string();
    let full = format!("refs/merge-requests/{number}/head");
    let added = payload.changes.as_ref().and_then(Changes::added_label);
    let action = match (merge.action.as_deref()?, merge.oldrev.is_some(), added) {
        ("open", _, _) => "opened",
        ("reopen", _, _) => "reopened",
        ("close", _, _) => "closed",
        ("merge", _, _) => "merged",
        ("update", true, _) => "synchronize",
        ("update", false, Some(_)) => "labeled",
        ("update", false, None) => "edited",
        (other, _, _) => other,
    };
    let commit = merge.last_commit.as_ref();
    let from = merge.source.as_ref();
    let known = merge.source_project_id.is_some();
    let fork = !known || merge.source_project_id != merge.target_project_id;
    let labels = payload.labels.as_deref().unwrap_or_default();
    let draft = payload
        .draft(EventKind::PullRequest)
        .fact("action", Some(action))
        .fact("ref", Some(&full))
        .fact("pr", Some(&number))
        .fact("branch", merge.target_branch.as_deref())
        .commit("sha", commit.and_then(|commit| commit.id.as_deref()))
        .commit("before", merge.oldrev.as_deref())
        .fact("head_branch", merge.source_branch.as_deref())
        .fact(
            "head_repository",
            from.and_then(|from| from.path_with_namespace.as_deref()),
        )
        .flag("fork", fork)
        .fact("label", added.filter(|_| action == "labeled"))
        .fact("title", merge.title.as_deref())
        .fact(
            "message",
            commit.and_then(|commit| commit.message.as_deref()),
        )
        .fact("url", merge.url.as_deref())
        .labels(labels.iter().filter_map(|label| label.title.as_deref()));
    Some(draft.told())
}

impl Changes {
    /// A label that is there now and was not before.
    fn added_label(&self) -> Option<&str> {
        let change = self.labels.as_ref()?;
        let before = change.previous.as_deref().unwrap_or_default();
        let now = change.current.as_deref().unwrap_or_default();
        let was_there = |title: &str| before.iter().any(|l| l.title.as_deref() == Some(title));
        let titles = now.iter().filter_map(|label| label.title.as_deref());
        titles.into_iter().find(|title| !was_there(title))
    }
}

fn release(payload: &Payload) -> Option<Told> {
    let created = payload.action.as_deref() == Some("create");
    let tag = payload.tag.as_deref().filter(|_| created)?;
    let commit = payload.commit.as_ref();
    let draft = payload
        .draft(EventKind::Release)
        .fact("action", Some("published"))
        .reference(Some(&format!("refs/tags/{tag}")))
        .commit("sha", commit.and_then(|commit| commit.id.as_deref()))
        .fact("title", payload.name.as_deref())
        .fact("url", payload.url.as_deref());
    Some(draft.told())
}
