//! What Bitbucket Cloud tells.

use distci_model::event::{Event, EventKind, Source};
use serde::Deserialize;

use super::draft::{Draft, kind_of_push};
use super::{Told, UNKNOWN};

/// Most changed refs of one push that are heard.
const MAX_CHANGES: usize = 64;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    repository: Option<Repository>,
    actor: Option<User>,
    push: Option<Push>,
    pullrequest: Option<Pull>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Repository {
    full_name: Option<String>,
    links: Option<Links>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Links {
    html: Option<Link>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Link {
    href: Option<String>,
}

impl Links {
    fn page(links: Option<&Self>) -> Option<&str> {
        links?.html.as_ref()?.href.as_deref()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    nickname: Option<String>,
    display_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Push {
    changes: Option<Vec<Change>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Change {
    new: Option<Tip>,
    old: Option<Tip>,
    created: Option<bool>,
    forced: Option<bool>,
    links: Option<Links>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tip {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    target: Option<Target>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Target {
    hash: Option<String>,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pull {
    id: Option<u64>,
    title: Option<String>,
    source: Option<End>,
    destination: Option<End>,
    links: Option<Links>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct End {
    branch: Option<Branch>,
    commit: Option<Target>,
    repository: Option<Repository>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Branch {
    name: Option<String>,
}

pub(super) fn told(event: &str, body: &[u8]) -> Result<Told, serde_json::Error> {
    let action = match event {
        "diagnostics:ping" => return Ok(Told::Ping),
        "repo:push" => None,
        "pullrequest:created" => Some("opened"),
        // New commits and a new title are told alike.
        "pullrequest:updated" => Some("synchronize"),
        "pullrequest:fulfilled" => Some("merged"),
        "pullrequest:rejected" => Some("closed"),
        _ => return Ok(Told::Nothing(UNKNOWN)),
    };
    let payload: Payload = serde_json::from_slice(body)?;
    let events: Vec<Event> = match action {
        Some(action) => pull_request(&payload, action).into_iter().collect(),
        None => pushes(&payload),
    };
    Ok(if events.is_empty() {
        Told::Nothing("it tells of no ref and no pull request")
    } else {
        Told::Events(events)
    })
}

impl Payload {
    fn draft(&self, kind: EventKind) -> Draft {
        let repository = self.repository.as_ref();
        let page = Links::page(repository.and_then(|repository| repository.links.as_ref()));
        let clone_url = page.map(|page| format!("{page}.git"));
        let user = self.actor.as_ref();
        let user = user.and_then(|user| user.nickname.as_deref().or(user.display_name.as_deref()));
        Draft::new(Source::Bitbucket, kind)
            .repository(page, clone_url.as_deref())
            .fact("sender", user)
    }
}

fn pushes(payload: &Payload) -> Vec<Event> {
    let push = payload.push.as_ref();
    let changes = push.and_then(|push| push.changes.as_deref());
    let changes = changes.unwrap_or_default().iter().take(MAX_CHANGES);
    changes
        .filter_map(|change| push_of(payload, change))
        .collect()
}

/// Which files changed is not told.
fn push_of(payload: &Payload, change: &Change) -> Option<Event> {
    let tip = change.new.as_ref().or(change.old.as_ref())?;
    let full = full_name(tip)?;
    let head = target(change.new.as_ref());
    let before = target(change.old.as_ref());
    let draft = payload
        .draft(kind_of_push(&full, change.new.is_none()))
        .reference(Some(&full))
        .commit("sha", head.and_then(|head| head.hash.as_deref()))
        .commit("before", before.and_then(|before| before.hash.as_deref()))
        .message(head.and_then(|head| head.message.as_deref()))
        .fact("url", Links::page(change.links.as_ref()))
        .flag("forced", change.forced.unwrap_or(false))
        .flag("created", change.created.unwrap_or(false));
    Some(draft.event())
}

fn target(tip: Option<&Tip>) -> Option<&Target> {
    tip?.target.as_ref()
}

fn full_name(tip: &Tip) -> Option<String> {
    let name = tip.name.as_deref()?;
    match tip.kind.as_deref()? {
        "tag" | "annotated_tag" => Some(format!("refs/tags/{name}")),
        "branch" | "named_branch" => Some(format!("refs/heads/{name}")),
        _ => None,
    }
}

fn pull_request(payload: &Payload, action: &str) -> Option<Event> {
    let pull = payload.pullrequest.as_ref()?;
    let (source, into) = (pull.source.as_ref()?, pull.destination.as_ref()?);
    let number = pull.id?.to_string();
    let name = |end: &End| end.repository.as_ref().and_then(|r| r.full_name.clone());
    let branch = |end: &End| end.branch.as_ref().and_then(|branch| branch.name.clone());
    // Here commits are told by their first twelve digits, by which nothing can be fetched.
    let commit = |end: &End| {
        let hash = end.commit.as_ref().and_then(|commit| commit.hash.clone());
        hash.filter(|hash| hash.len() >= 40)
    };
    let fork = name(source).is_none() || name(source) != name(into);
    // There is no ref of a pull request; its branch serves, where it is in this repository.
    let full = branch(source)
        .filter(|_| !fork)
        .map(|name| format!("refs/heads/{name}"));
    let draft = payload
        .draft(EventKind::PullRequest)
        .fact("action", Some(action))
        .fact("ref", full.as_deref())
        .fact("pr", Some(&number))
        .fact("branch", branch(into).as_deref())
        .commit("sha", commit(source).as_deref())
        .commit("base_sha", commit(into).as_deref())
        .fact("head_branch", branch(source).as_deref())
        .fact("head_repository", name(source).as_deref())
        .flag("fork", fork)
        .fact("title", pull.title.as_deref())
        .fact("url", Links::page(pull.links.as_ref()));
    Some(draft.event())
}
