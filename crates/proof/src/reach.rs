//! Whether everything can still be finished, from wherever the cluster got to.
//!
//! Owns an exploration of its own: a checker that follows paths forward cannot say that a goal is out
//! of reach, so the whole graph is laid out, and walked backwards from where the goal is met. States
//! are known by a hash of 64 bits, as the checker knows them.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::Model;

/// A space that was walked through wholly.
#[derive(Debug, Clone)]
pub struct Walked<A> {
    /// How many states there are.
    pub states: usize,
    /// How many steps lead from one to another.
    pub steps: usize,
    /// How many steps it takes to the farthest state.
    pub depth: usize,
    /// In how many states the goal is met.
    pub goals: usize,
    /// In how many it is out of reach,
    pub stuck: usize,
    /// and a shortest way to one of them.
    pub way: Option<Vec<A>>,
}

/// A state in small.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    depth: u32,
    /// From where it was reached first,
    from: u32,
    /// and by which of the actions there.
    nth: u32,
    goal: bool,
}

/// All states and steps that were met.
#[derive(Debug, Default)]
struct Graph {
    known: HashMap<u64, u32>,
    places: Vec<Place>,
    /// Each step, by where it leads to and from where.
    steps: Vec<(u32, u32)>,
}

impl Graph {
    /// The place of a state, and whether it was not known.
    fn place(&mut self, state: &impl Hash, first: Place) -> (u32, bool) {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let next = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let place = *self.known.entry(hasher.finish()).or_insert(next);
        if place == next {
            self.places.push(first);
        }
        (place, place == next)
    }

    /// Which places can reach a goal.
    fn reaching(&mut self) -> Vec<bool> {
        self.steps.sort_unstable();
        let mut reaches: Vec<bool> = self.places.iter().map(|place| place.goal).collect();
        let mut open: Vec<usize> = (0..reaches.len()).filter(|place| reaches[*place]).collect();
        while let Some(here) = open.pop() {
            let first = self.steps.partition_point(|(to, _)| (*to as usize) < here);
            let into = self.steps[first..].iter();
            for (_, from) in into.take_while(|(to, _)| *to as usize == here) {
                let from = *from as usize;
                if !reaches[from] {
                    reaches[from] = true;
                    open.push(from);
                }
            }
        }
        reaches
    }

    /// The actions that lead to a place; all begin in the first.
    fn way_to<M: Model>(&self, model: &M, to: usize) -> Vec<M::Action> {
        let mut places = vec![self.places[to]];
        while let Some(place) = places.last().copied().filter(|it| it.depth > 1) {
            places.push(self.places[place.from as usize]);
        }
        let mut way = Vec::new();
        let mut state = model.init_states().into_iter().next();
        for place in places.iter().rev().filter(|place| place.depth > 0) {
            let action = |state: &M::State| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                actions.into_iter().nth(place.nth as usize)
            };
            let Some(here) = state.take() else {
                break;
            };
            way.extend(action(&here));
            state = action(&here).and_then(|action| model.next_state(&here, action));
        }
        way
    }
}

/// Walks through all states of a model that begins in one state.
pub fn walk<M>(model: &M, is_goal: impl Fn(&M::State) -> bool) -> Walked<M::Action>
where
    M: Model,
    M::State: Hash,
{
    let mut graph = Graph::default();
    let mut open: VecDeque<(u32, M::State)> = VecDeque::new();
    for state in model.init_states() {
        let (place, _) = graph.place(&state, Place::default());
        open.push_back((place, state));
    }
    while let Some((here, state)) = open.pop_front() {
        let place = &mut graph.places[here as usize];
        place.goal = is_goal(&state);
        let depth = place.depth + 1;
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        for (nth, action) in (0..).zip(actions) {
            let Some(next) = model.next_state(&state, action) else {
                continue;
            };
            let first = Place {
                depth,
                from: here,
                nth,
                goal: false,
            };
            let (there, is_new) = graph.place(&next, first);
            graph.steps.push((there, here));
            if is_new {
                open.push_back((there, next));
            }
        }
    }
    let reaches = graph.reaching();
    let stuck = reaches.iter().position(|reaches| !reaches);
    let deepest = graph.places.iter().map(|place| place.depth).max();
    Walked {
        states: graph.places.len(),
        steps: graph.steps.len(),
        depth: deepest.unwrap_or_default() as usize,
        goals: graph.places.iter().filter(|place| place.goal).count(),
        stuck: reaches.iter().filter(|reaches| !**reaches).count(),
        way: stuck.map(|stuck| graph.way_to(model, stuck)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes up by one or two, and at three also to where there is no way on.
    struct Stairs {
        trap: bool,
    }

    impl Model for Stairs {
        type State = u8;
        type Action = u8;

        fn init_states(&self) -> Vec<u8> {
            vec![0]
        }

        fn actions(&self, state: &u8, actions: &mut Vec<u8>) {
            if *state < 6 {
                actions.extend([1, 2]);
            }
            if self.trap && *state == 3 {
                actions.push(100);
            }
        }

        fn next_state(&self, state: &u8, action: u8) -> Option<u8> {
            Some(state + action)
        }
    }

    #[test]
    fn a_goal_is_reached_from_everywhere() {
        let walked = walk(&Stairs { trap: false }, |state| *state >= 6);
        assert_eq!((walked.states, walked.goals, walked.stuck), (8, 2, 0));
        assert_eq!(walked.way, None);
        assert_eq!(walked.depth, 4);
    }

    #[test]
    fn a_dead_end_is_found_with_a_shortest_way_to_it() {
        let walked = walk(&Stairs { trap: true }, |state| (6..100).contains(state));
        assert_eq!(walked.stuck, 1);
        assert_eq!(walked.way, Some(vec![1, 2, 100]));
    }
}
