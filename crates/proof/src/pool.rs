//! Values that are kept once and known by a number.
//!
//! Owns what makes a state small: two states that hold the same tree hold the same number. Never
//! forgets a value.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// The values seen so far.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    all: Vec<Arc<T>>,
    known: HashMap<Arc<T>, u32>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            known: HashMap::new(),
        }
    }
}

impl<T: Eq + Hash> Pool<T> {
    /// The number of a value.
    pub(crate) fn keep(&mut self, value: T) -> u32 {
        if let Some(number) = self.known.get(&value) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let value = Arc::new(value);
        self.all.push(Arc::clone(&value));
        self.known.insert(value, number);
        number
    }

    /// The value of a number.
    pub(crate) fn get(&self, number: u32) -> Arc<T> {
        Arc::clone(&self.all[number as usize])
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}
