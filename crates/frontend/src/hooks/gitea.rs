//! What Gitea and Forgejo tell: nearly what GitHub does, with differences that matter.

use distci_model::event::{EventKind, Source};
use serde::Deserialize;

use super::draft::{Commit, Draft, changed, is_no_commit, kind_of_push};
use super::{Told, UNKNOWN};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    action: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    ref_type: Option<String>,
    before: Option<String>,
    after: Option<String>,
    compare_url: Option<String>,
    commits: Option<Vec<Commit>>,
    total_commits: Option<u64>,
    head_commit: Option<Commit>,
    repository: Option<Repository>,
    sender: Option<User>,
    pull_request: Option<Pull>,
    release: Option<Release>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Repository {
    id: Option<u64>,
    html_url: Option<String>,
    clone_url: Option<String>,
    full_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    login: Option<String>,
    username: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pull {
    number: Option<u64>,
    title: Option<String>,
    html_url: Option<String>,
    head: Option<End>,
    base: Option<End>,
    labels: Option<Vec<Label>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Label {
    name: Option<String>,
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
    name: Option<String>,
    html_url: Option<String>,
}

pub(super) fn told(event: &str, body: &[u8]) -> Result<Told, serde_json::Error> {
    let read: fn(&Payload) -> Option<Told> = match event {
        "push" => push,
        "delete" => delete,
        "release" => release,
        "create" => return Ok(Told::Nothing("the push beside it tells the same")),
        // There is a name for each group of actions; the payload is the same.
        "pull_request" | "pull_request_sync" | "pull_request_label" => pull_request,
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
        let sender = sender.and_then(|user| user.login.as_deref().or(user.username.as_deref()));
        Draft::new(Source::Gitea, kind)
            .repository(page, clone_url)
            .fact("sender", sender)
    }
}

fn push(payload: &Payload) -> Option<Told> {
    let full = payload.reference.as_deref()?;
    let (before, after) = (payload.before.as_deref()?, payload.after.as_deref()?);
    let (created, deleted) = (is_no_commit(before), is_no_commit(after));
    let commits = payload.commits.as_deref().unwrap_or_default();
    let all = payload.total_commits == Some(commits.len() as u64);
    let whole = all && !created && !deleted && !commits.is_empty();
    let head = payload.head_commit.as_ref();
    let draft = payload
        .draft(kind_of_push(full, deleted))
        .reference(Some(full))
        .commit("sha", Some(after))
        .commit("before", Some(before))
        .message(head.and_then(|head| head.message.as_deref()))
        .fact("url", payload.compare_url.as_deref())
        .flag("created", created)
        .paths(whole.then(|| changed(commits)).flatten());
    Some(draft.told())
}

/// The only word of a ref that went: there is no push of it. Its name is the short one.
fn delete(payload: &Payload) -> Option<Told> {
    let name = payload.reference.as_deref()?;
    let full = match payload.ref_type.as_deref()? {
        "tag" => format!("refs/tags/{name}"),
        _ => format!("refs/heads/{name}"),
    };
    let draft = payload.draft(EventKind::Delete);
    Some(draft.reference(Some(&full)).told())
}

fn pull_request(payload: &Payload) -> Option<Told> {
    let pull = payload.pull_request.as_ref()?;
    let (head, base) = (pull.head.as_ref()?, pull.base.as_ref()?);
    let number = pull.number?.to_string();
    let full = format!("refs/pull/{number}/head");
    let action = match payload.action.as_deref()? {
        "synchronized" => "synchronize",
        "label_updated" => "labeled",
        "label_cleared" => "unlabeled",
        other => other,
    };
    let id = |end: &End| end.repo.as_ref().and_then(|repository| repository.id);
    let from = head.repo.as_ref();
    let labels = pull.labels.as_deref().unwrap_or_default();
    let draft = payload
        .draft(EventKind::PullRequest)
        .fact("action", Some(action))
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
        .flag("fork", id(head).is_none() || id(head) != id(base))
        .fact("title", pull.title.as_deref())
        .fact("url", pull.html_url.as_deref())
        .labels(labels.iter().filter_map(|label| label.name.as_deref()));
    Some(draft.told())
}

fn release(payload: &Payload) -> Option<Told> {
    let published = payload.action.as_deref() == Some("published");
    let release = payload.release.as_ref().filter(|_| published)?;
    let tag = release.tag_name.as_deref()?;
    let draft = payload
        .draft(EventKind::Release)
        .fact("action", Some("published"))
        .reference(Some(&format!("refs/tags/{tag}")))
        .fact("title", release.name.as_deref())
        .fact("url", release.html_url.as_deref());
    Some(draft.told())
}
