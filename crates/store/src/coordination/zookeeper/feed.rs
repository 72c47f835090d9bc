//! What the ensemble tells a session, in the order in which it tells it.
//!
//! Owns the watches, on the servers' side and on ours, and the state of the line. Never waits for a
//! server. Invariant: whoever holds a reply and calls into the feed finds everything that came
//! before the reply in the queues. The client's one session task hands over events and replies in
//! wire order; here, whoever comes first moves the events on, caller or keeper, so that no task
//! stands between the wire and the queues.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::timeout;
use zookeeper_client::{
    AddWatchMode, Client, Error, EventType, PersistentWatcher, SessionState, WatchedEvent,
};

use super::session::Session;
use crate::coordination::watch::Watches;
use crate::coordination::{Event, Health, NodePath, Outage, SessionFacts, Watch};

/// How long a request waits for a line. Most losses are a server that restarts, and others take
/// over within this time; after a longer one it is better to answer than to gather callers.
const PATIENCE: Duration = Duration::from_secs(1);

/// The events and the state of a session, and of its successors.
pub(super) struct Feed {
    state: Mutex<State>,
    // Written under the lock of `state` only.
    health: Sender<Health>,
    // The newest time by the leader's clock that anybody has told us, in milliseconds.
    time: AtomicI64,
}

/// A connection that may be used: it has caught up, and its watches are registered.
pub(super) struct Line {
    pub(super) client: Arc<Client>,
    epoch: u64,
}

/// What the keeper has to care for.
pub(super) enum News {
    /// There is a connection, but nothing is known of what happened before it.
    Back,
    /// The session is over.
    Ended,
    /// The session is over because our credentials are refused.
    Refused,
}

/// A return to health that has begun.
pub(super) struct Return {
    pub(super) client: Arc<Client>,
    losses: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Lost,
    Back,
    Ended,
    Refused,
    Fenced,
}

struct State {
    client: Option<Arc<Client>>,
    lifeline: Option<PersistentWatcher>,
    directories: Vec<Directory>,
    link: Link,
    // How often the line was lost; with it an epoch ends.
    losses: u64,
    // How many sessions there have been.
    sessions: u64,
    // The keeper's. Callers poll in its name, or it would sleep through what comes after them.
    waker: Waker,
}

impl Feed {
    /// The feed of a session whose line is yet to be opened.
    pub(super) fn new(session: Session) -> Self {
        let feed = Self {
            state: Mutex::new(State {
                client: None,
                lifeline: None,
                directories: Vec::new(),
                link: Link::Ended,
                losses: 0,
                sessions: 0,
                waker: Waker::noop().clone(),
            }),
            health: Sender::new(Health::Disconnected),
            time: AtomicI64::new(0),
        };
        feed.renew(session);
        feed
    }

    pub(super) fn health(&self) -> Receiver<Health> {
        self.health.subscribe()
    }

    /// The session for people; `wanted` is the timeout that was asked for.
    pub(super) fn session(&self, wanted: Duration) -> SessionFacts {
        let state = self.drained();
        let client = state.client.as_ref();
        let running = u64::from(client.is_some());
        SessionFacts {
            id: client.map(|client| format!("{:#018x}", client.session_id().0)),
            timeout: client.map_or(wanted, |client| client.session_timeout()),
            losses: state.losses,
            ended: state.sessions.saturating_sub(running),
        }
    }

    /// Notes what the leader's clock said, and gives the newest that it ever said: leaders change,
    /// and their clocks differ.
    pub(super) fn note_time(&self, told: Option<i64>) -> Timestamp {
        let newest = told.unwrap_or_default();
        let before = self.time.fetch_max(newest, Ordering::Relaxed);
        Timestamp::from_millisecond(before.max(newest)).unwrap_or(Timestamp::MAX)
    }

    /// The line, as soon as it is open; waits for it a moment.
    pub(super) async fn line(&self) -> Result<Line, Outage> {
        let mut health = self.health.subscribe();
        let line = async {
            loop {
                match self.try_line() {
                    Err(Outage::Disconnected) if health.changed().await.is_ok() => {}
                    line => return line,
                }
            }
        };
        timeout(PATIENCE, line)
            .await
            .unwrap_or(Err(Outage::Disconnected))
    }

    fn try_line(&self) -> Result<Line, Outage> {
        let state = self.drained();
        match (*self.health.borrow(), &state.client) {
            (Health::Connected { epoch }, Some(client)) => Ok(Line {
                client: client.clone(),
                epoch,
            }),
            (Health::Fenced, _) => Err(Outage::Fenced),
            (Health::Connected { .. } | Health::Disconnected, _) => Err(Outage::Disconnected),
        }
    }

    /// Whether the line has been open all the time, with all that came over it queued.
    pub(super) fn is_open(&self, line: &Line) -> bool {
        let _state = self.drained();
        *self.health.borrow() == Health::Connected { epoch: line.epoch }
    }

    /// Waits for the line that follows this one, and says whether it came in time.
    pub(super) async fn reopens(&self, line: &Line, limit: Duration) -> bool {
        let mut health = self.health.subscribe();
        let later = |health: &Health| match health {
            Health::Connected { epoch } => *epoch > line.epoch,
            Health::Disconnected | Health::Fenced => false,
        };
        let reopened = timeout(limit, health.wait_for(later)).await;
        matches!(reopened, Ok(Ok(_)))
    }

    /// Begins a watch. Its request leaves before any later one of this session.
    pub(super) fn watch(&self, dir: &NodePath) -> Watch {
        // With everything of the past queued, it reaches none of the new watch.
        let mut state = self.drained();
        if state.link == Link::Fenced {
            // The queues end when they are dropped.
            return Watches::default().watch(dir);
        }
        let known = state.directories.iter().find(|known| known.path == *dir);
        if let Some(directory) = known {
            return directory.readers.watch(dir);
        }
        let mut directory = Directory::new(dir);
        let watch = directory.readers.watch(dir);
        if let Some(client) = &state.client {
            directory.register(client, &state.waker);
        }
        state.directories.push(directory);
        watch
    }

    /// Waits until the keeper has to care for something, and moves events on meanwhile.
    pub(super) async fn news(&self) -> News {
        std::future::poll_fn(|context| {
            self.lock().waker.clone_from(context.waker());
            match self.drained().link {
                Link::Up | Link::Lost | Link::Fenced => Poll::Pending,
                Link::Back => Poll::Ready(News::Back),
                Link::Ended => Poll::Ready(News::Ended),
                Link::Refused => Poll::Ready(News::Refused),
            }
        })
        .await
    }

    /// Goes on with a new session.
    pub(super) fn renew(&self, session: Session) {
        self.note_time(Some(session.began));
        let mut state = self.lock();
        state.client = Some(Arc::new(session.client));
        state.lifeline = Some(session.lifeline);
        state.sessions += 1;
        state.link = Link::Back;
    }

    /// Sends the watches anew over the present connection, if there is one that needs it.
    ///
    /// The client would do it by itself after a lost connection, but forgets recursive watches;
    /// and they need it as well after a session has ended.
    pub(super) fn begin_return(&self) -> Option<Return> {
        let mut state = self.drained();
        let client = state.client.clone().filter(|_| state.link == Link::Back)?;
        let State {
            directories, waker, ..
        } = &mut *state;
        for directory in directories {
            directory.register(&client, waker);
        }
        let losses = state.losses;
        Some(Return { client, losses })
    }

    /// Opens the line after a quorum has answered, unless it was lost again meanwhile.
    pub(super) fn finish_return(&self, returned: &Return) -> Result<(), Error> {
        let mut state = self.drained();
        if state.link != Link::Back || state.losses != returned.losses {
            return Ok(());
        }
        let mut failures = state.directories.iter_mut();
        if let Some(error) = failures.find_map(|directory| directory.failure.take()) {
            return Err(error);
        }
        for directory in &state.directories {
            directory.readers.lose();
        }
        state.link = Link::Up;
        let epoch = state.losses + 1;
        self.health.send_replace(Health::Connected { epoch });
        Ok(())
    }

    /// Gives up for ever.
    pub(super) fn fence(&self) {
        let mut state = self.lock();
        state.end(Link::Fenced);
        state.directories.clear();
        self.health.send_replace(Health::Fenced);
    }

    /// Whether the last session has ended and no other has begun.
    #[cfg(test)]
    pub(super) fn is_without_session(&self) -> bool {
        self.drained().client.is_none()
    }

    /// The state, after everything that the session task has handed over so far is queued.
    fn drained(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.drain();
        let open = matches!(*self.health.borrow(), Health::Connected { .. });
        if open && state.link != Link::Up {
            self.health.send_replace(Health::Disconnected);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so a poisoned one still guards a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drain(&mut self) {
        let waker = self.waker.clone();
        let context = &mut Context::from_waker(&waker);
        while let Some(event) = poll_watcher(&mut self.lifeline, context) {
            self.turn(event.session_state);
        }
        // With its last reader a directory goes, and with it the watch on the servers.
        self.directories
            .retain(|directory| !directory.readers.are_abandoned());
        let mut failed = false;
        for directory in &mut self.directories {
            directory.drain(context);
            failed |= directory.failure.is_some();
        }
        // A watch that was begun on an open line and refused is a loss of what it would have told.
        if failed && self.link == Link::Up {
            self.lose(Link::Back);
            // The drain may be a caller's, and the keeper has to see to it.
            waker.wake();
        }
    }

    fn turn(&mut self, session: SessionState) {
        match session {
            SessionState::SyncConnected => self.link = Link::Back,
            SessionState::Disconnected | SessionState::ConnectedReadOnly => self.lose(Link::Lost),
            SessionState::Expired | SessionState::Closed => self.end(Link::Ended),
            SessionState::AuthFailed => self.end(Link::Refused),
        }
    }

    const fn lose(&mut self, link: Link) {
        self.link = link;
        self.losses += 1;
    }

    fn end(&mut self, link: Link) {
        self.lose(link);
        self.client = None;
        self.lifeline = None;
        for directory in &mut self.directories {
            directory.watcher = None;
            directory.registration = None;
        }
    }
}

/// One watched directory.
struct Directory {
    path: NodePath,
    readers: Watches,
    watcher: Option<PersistentWatcher>,
    registration: Option<Registration>,
    failure: Option<Error>,
}

type Registration = Pin<Box<dyn Future<Output = Result<PersistentWatcher, Error>> + Send>>;

impl Directory {
    fn new(path: &NodePath) -> Self {
        Self {
            path: path.clone(),
            readers: Watches::default(),
            watcher: None,
            registration: None,
            failure: None,
        }
    }

    /// Sends the request for the watch.
    fn register(&mut self, client: &Arc<Client>, waker: &Waker) {
        let (client, path) = (client.clone(), self.path.clone());
        let request = async move {
            let mode = AddWatchMode::PersistentRecursive;
            client.watch(path.as_str(), mode).await
        };
        self.failure = None;
        self.registration = Some(Box::pin(request));
        // The first poll puts the request in the session's line.
        self.drain(&mut Context::from_waker(waker));
    }

    fn drain(&mut self, context: &mut Context<'_>) {
        if let Some(registration) = &mut self.registration
            && let Poll::Ready(registered) = registration.as_mut().poll(context)
        {
            self.registration = None;
            match registered {
                // A second watcher of one path shares the servers' watch with the first, which may
                // hold events still; so the first one stays.
                Ok(watcher) => drop(self.watcher.get_or_insert(watcher)),
                Err(error) => self.failure = Some(error),
            }
        }
        let mut events = Vec::new();
        while let Some(event) = poll_watcher(&mut self.watcher, context) {
            events.extend(translate(&event));
        }
        if !events.is_empty() {
            self.readers.publish(&events);
        }
    }
}

/// The next event of a watcher, if it is there. The last one of its session ends the watcher, which
/// must not be asked again.
fn poll_watcher(
    watcher: &mut Option<PersistentWatcher>,
    context: &mut Context<'_>,
) -> Option<WatchedEvent> {
    let Poll::Ready(event) = pin!(watcher.as_mut()?.changed()).poll(context) else {
        return None;
    };
    if event.event_type == EventType::Session && is_terminal(event.session_state) {
        *watcher = None;
    }
    Some(event)
}

const fn is_terminal(session: SessionState) -> bool {
    match session {
        SessionState::AuthFailed | SessionState::Expired | SessionState::Closed => true,
        SessionState::SyncConnected
        | SessionState::Disconnected
        | SessionState::ConnectedReadOnly => false,
    }
}

fn translate(event: &WatchedEvent) -> Option<Event> {
    let path = || NodePath::parse(&event.path).ok();
    match event.event_type {
        EventType::NodeCreated => path().map(Event::Created),
        EventType::NodeDeleted => path().map(Event::Deleted),
        EventType::NodeDataChanged => path().map(Event::Changed),
        // Older servers send changes of children to recursive watches after a reconnect; the node
        // that came or went is told as well.
        EventType::Session | EventType::NodeChildrenChanged => None,
    }
}
