//! Pausing a process: nothing of it goes on while its gate is shut.
//!
//! Owns who waits at the gate. Time goes on meanwhile, as it does for a process that is stopped.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The gate of one process. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// Pauses everything behind it.
    pub(crate) fn shut(&self) {
        self.state().is_shut = true;
    }

    /// Lets everything behind it go on.
    pub(crate) fn open(&self) {
        let waiting = {
            let mut state = self.state();
            state.is_shut = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Does `work` behind the gate.
    pub(crate) async fn guard<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            {
                let mut state = self.state();
                if state.is_shut {
                    state.waiting.push(context.waker().clone());
                    return Poll::Pending;
                }
            }
            work.as_mut().poll(context)
        })
        .await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
