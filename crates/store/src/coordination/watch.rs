//! Watches as every implementation hands them out.
//!
//! Owns the queues between a store that publishes and consumers that may be slow. Never blocks the
//! publisher and never grows without bound. Invariant: a queue holds every event since its last
//! gap, in order, or begins with a gap.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::{Event, NodePath};

/// The most events that wait for a slow consumer: seconds of work at the write rate we plan for,
/// and some 1 MiB. Beyond that, listing again is cheaper than catching up.
pub(crate) const WATCH_BUFFER: usize = 8192;

/// News about one directory, in order. Dropping it ends the watch.
pub struct Watch {
    queue: Arc<Queue>,
}

impl Watch {
    /// The next event, as soon as there is one; nothing once the store is gone.
    ///
    /// # Cancel safety
    ///
    /// A dropped call takes no event.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.queue.take() {
                Taken::Event(event) => return Some(event),
                Taken::End => return None,
                // A notice given since `take` is kept by `Notify` for the one consumer there is.
                Taken::Nothing => self.queue.news.notified().await,
            }
        }
    }
}

impl Watch {
    /// Forgets the events that are queued.
    pub(crate) fn skip(&mut self) {
        lock(&self.queue.inner).events.clear();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("dir", &self.queue.dir)
            .finish_non_exhaustive()
    }
}

/// The watches of one store or session. Dropping it ends them all.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    // Weak, so that a dropped watch costs nothing but a look at the next publication.
    queues: Vec<Weak<Queue>>,
    closed: bool,
}

impl Watches {
    /// Begins a watch of everything strictly below `dir`.
    pub(crate) fn watch(&self, dir: &NodePath) -> Watch {
        let queue = Arc::new(Queue::new(dir.clone()));
        let mut registry = lock(&self.registry);
        if registry.closed {
            queue.close();
        }
        registry.queues.push(Arc::downgrade(&queue));
        Watch { queue }
    }

    /// Whether nobody holds a watch any more.
    pub(crate) fn are_abandoned(&self) -> bool {
        let registry = lock(&self.registry);
        registry
            .queues
            .iter()
            .all(|queue| queue.strong_count() == 0)
    }

    /// Queues `events` for every watch that they concern.
    pub(crate) fn publish(&self, events: &[Event]) {
        lock(&self.registry).each(|queue| queue.push(events));
    }

    /// Tells every watch that events were lost.
    pub(crate) fn lose(&self) {
        lock(&self.registry).each(Queue::lose);
    }

    /// Ends every watch after what is queued, also those that begin later.
    pub(crate) fn close(&self) {
        let mut registry = lock(&self.registry);
        registry.closed = true;
        registry.each(Queue::close);
    }
}

impl Registry {
    fn each(&mut self, tell: impl Fn(&Queue)) {
        self.queues
            .retain(|queue| queue.upgrade().inspect(|queue| tell(queue)).is_some());
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.close();
    }
}

struct Queue {
    dir: NodePath,
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    events: VecDeque<Event>,
    closed: bool,
}

enum Taken {
    Event(Event),
    Nothing,
    End,
}

impl Queue {
    fn new(dir: NodePath) -> Self {
        Self {
            dir,
            inner: Mutex::default(),
            news: Notify::new(),
        }
    }

    fn push(&self, events: &[Event]) {
        let concerned = |event: &&Event| event.path().is_some_and(|path| path.is_below(&self.dir));
        let mut inner = lock(&self.inner);
        for event in events.iter().filter(concerned) {
            if inner.events.len() >= WATCH_BUFFER {
                inner.forget();
            }
            inner.events.push_back(event.clone());
        }
        self.news.notify_one();
    }

    fn lose(&self) {
        lock(&self.inner).forget();
        self.news.notify_one();
    }

    fn close(&self) {
        lock(&self.inner).closed = true;
        self.news.notify_one();
    }

    fn take(&self) -> Taken {
        let mut inner = lock(&self.inner);
        match inner.events.pop_front() {
            Some(event) => Taken::Event(event),
            None if inner.closed => Taken::End,
            None => Taken::Nothing,
        }
    }
}

impl Inner {
    /// A list that follows the gap shows what the forgotten events told, so they are of no use.
    fn forget(&mut self) {
        self.events.clear();
        self.events.push_back(Event::Gap);
    }
}

/// No code panics while it holds one of these locks, so a poisoned one still guards whole data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
