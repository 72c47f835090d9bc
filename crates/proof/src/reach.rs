//! Whether everything can still be finished, from wherever the cluster got to.
//!
//! Owns an exploration of its own: a checker that follows paths forward cannot say that a goal is out
//! of reach, so the whole graph is laid out, and walked backwards from where the goal is met.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

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

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    depth: usize,
    /// From where it was reached first, and by which of the actions there.
    from: Option<(usize, usize)>,
    goal: bool,
}

/// Walks through all states of a model.
pub fn walk<M>(model: &M, is_goal: impl Fn(&M::State) -> bool) -> Walked<M::Action>
where
    M: Model,
    M::State: Clone + Eq + Hash,
    M::Action: Clone,
{
    let mut known: HashMap<M::State, usize> = HashMap::new();
    let mut places: Vec<Place> = Vec::new();
    let mut back: Vec<Vec<u32>> = Vec::new();
    let mut open: VecDeque<M::State> = VecDeque::new();
    let mut steps = 0;
    for state in model.init_states() {
        known.insert(state.clone(), places.len());
        places.push(Place::default());
        back.push(Vec::new());
        open.push_back(state);
    }
    while let Some(state) = open.pop_front() {
        let here = known[&state];
        places[here].goal = is_goal(&state);
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        for (nth, action) in actions.into_iter().enumerate() {
            let Some(next) = model.next_state(&state, action) else {
                continue;
            };
            steps += 1;
            let there = *known.entry(next).or_insert_with_key(|next| {
                open.push_back(next.clone());
                back.push(Vec::new());
                places.push(Place {
                    depth: places[here].depth + 1,
                    from: Some((here, nth)),
                    goal: false,
                });
                places.len() - 1
            });
            back[there].push(u32::try_from(here).unwrap_or(u32::MAX));
        }
    }
    let reaches = reaching(&places, &back);
    let stuck = reaches.iter().position(|reaches| !reaches);
    Walked {
        states: places.len(),
        steps,
        depth: places.iter().map(|place| place.depth).max().unwrap_or(0),
        goals: places.iter().filter(|place| place.goal).count(),
        stuck: reaches.iter().filter(|reaches| !**reaches).count(),
        way: stuck.map(|stuck| way_to(model, &places, stuck)),
    }
}

/// Which places can reach a goal.
fn reaching(places: &[Place], back: &[Vec<u32>]) -> Vec<bool> {
    let mut reaches: Vec<bool> = places.iter().map(|place| place.goal).collect();
    let goals = (0..places.len()).filter(|place| places[*place].goal);
    let mut open: Vec<usize> = goals.collect();
    while let Some(here) = open.pop() {
        for before in &back[here] {
            let before = *before as usize;
            if !reaches[before] {
                reaches[before] = true;
                open.push(before);
            }
        }
    }
    reaches
}

/// The actions that lead to a place.
fn way_to<M: Model>(model: &M, places: &[Place], to: usize) -> Vec<M::Action> {
    let mut nths = Vec::new();
    let mut at = to;
    while let Some((from, nth)) = places[at].from {
        nths.push(nth);
        at = from;
    }
    let mut way = Vec::new();
    let Some(mut state) = model.init_states().into_iter().nth(at) else {
        return way;
    };
    for nth in nths.into_iter().rev() {
        let action = |state: &M::State| {
            let mut actions = Vec::new();
            model.actions(state, &mut actions);
            actions.into_iter().nth(nth)
        };
        let next = action(&state).and_then(|action| model.next_state(&state, action));
        way.extend(action(&state));
        match next {
            Some(next) => state = next,
            None => break,
        }
    }
    way
}
