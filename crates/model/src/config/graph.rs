//! What needs what among the tasks of a job.
//!
//! Owns the order of tasks. Cycles and unknown names are refused before a graph is made; should one
//! be there all the same, the tasks on it are simply never ready.

use std::collections::{BTreeSet, HashMap};

use super::TaskConfig;

/// The tasks of a job by index, with everything that each needs directly or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    order: Vec<usize>,
    ancestors: Vec<BTreeSet<usize>>,
}

impl Graph {
    /// The graph of `tasks`.
    pub(super) fn of(tasks: &[TaskConfig]) -> Self {
        let index: HashMap<_, _> = tasks
            .iter()
            .enumerate()
            .map(|(index, task)| (&task.name, index))
            .collect();
        let needs: Vec<Vec<usize>> = tasks
            .iter()
            .map(|task| {
                task.needs
                    .iter()
                    .filter_map(|need| index.get(&need.task).copied())
                    .collect()
            })
            .collect();
        Self::of_needs(&needs)
    }

    /// The graph where task `i` needs `needs[i]`.
    pub(super) fn of_needs(needs: &[Vec<usize>]) -> Self {
        let mut order: Vec<usize> = Vec::with_capacity(needs.len());
        let mut placed = vec![false; needs.len()];
        let mut ancestors = vec![BTreeSet::new(); needs.len()];
        // Each round places what has become ready, lowest index first; a round that places
        // nothing leaves only cycles.
        loop {
            let before = order.len();
            for task in 0..needs.len() {
                let ready = needs[task].iter().all(|&need| placed[need]);
                if placed[task] || !ready {
                    continue;
                }
                ancestors[task] = needs[task]
                    .iter()
                    .flat_map(|&need| ancestors[need].iter().copied().chain([need]))
                    .collect();
                placed[task] = true;
                order.push(task);
            }
            if order.len() == before {
                return Self { order, ancestors };
            }
        }
    }

    /// Every task that is on no cycle, each after all that it needs.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Everything that `task` needs, directly or not.
    pub fn ancestors(&self, task: usize) -> &BTreeSet<usize> {
        static NONE: BTreeSet<usize> = BTreeSet::new();
        self.ancestors.get(task).unwrap_or(&NONE)
    }

    /// The same, each after all that it needs itself.
    pub fn ancestors_in_order(&self, task: usize) -> impl Iterator<Item = usize> {
        let ancestors = self.ancestors(task);
        self.order
            .iter()
            .copied()
            .filter(move |index| ancestors.contains(index))
    }
}
