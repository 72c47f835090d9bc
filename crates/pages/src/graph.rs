//! The tasks of a build as a picture: who needs whom, and how each stands.
//!
//! Owns the places of nodes and edges. Tasks stand in layers, each right of all that it needs; cells
//! of one matrix stand together in one node. An edge that others imply is not drawn.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use askama::filters::HtmlSafe;
use distci_model::id::{BuildRef, TaskName};
use distci_model::wire::TaskView;

use crate::state::State;
use crate::words::shorten;

/// Units of a node, of a cell in it, and between nodes.
const WIDTH: usize = 164;
const HEIGHT: usize = 34;
const CELL: usize = 22;
const TITLE: usize = 24;
const ACROSS: usize = 36;
const DOWN: usize = 12;
/// Units above and below all nodes, where edges run that pass layers by.
const LANE: usize = 12;
/// Cells of one column of a node.
const COLUMN: usize = 8;
/// Most characters of a name.
const NAME: usize = 20;

/// A picture of the tasks of a build.
#[derive(Debug, Template)]
#[template(path = "graph.html")]
pub(crate) struct Graph {
    build: BuildRef,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    width: usize,
    height: usize,
}

#[derive(Debug)]
struct Node {
    /// What its cells have in common; empty for a task that has no cells.
    title: String,
    cells: Vec<Cell>,
    layer: usize,
    needs: BTreeSet<usize>,
    x: usize,
    y: usize,
}

#[derive(Debug)]
struct Cell {
    task: TaskName,
    name: String,
    state: State,
    /// Whether there is a console to show.
    has_begun: bool,
}

#[derive(Debug)]
struct Edge {
    from: (usize, usize),
    to: (usize, usize),
    /// Where it runs while it passes layers by.
    lane: Option<usize>,
}

impl Graph {
    pub(crate) fn of(build: &BuildRef, tasks: &[TaskView]) -> Self {
        let mut nodes = nodes(tasks);
        let layers = place(&mut nodes);
        let height = nodes.iter().map(|node| node.y + node.height()).max();
        let height = height.unwrap_or(0) + LANE;
        let edges = edges(&nodes, height);
        Self {
            build: build.clone(),
            width: layers,
            height,
            nodes,
            edges,
        }
    }
}

impl Node {
    fn is_group(&self) -> bool {
        !self.title.is_empty()
    }

    fn columns(&self) -> usize {
        self.cells.len().div_ceil(COLUMN).max(1)
    }

    fn width(&self) -> usize {
        self.columns() * WIDTH
    }

    fn height(&self) -> usize {
        if self.is_group() {
            TITLE + self.cells.len().min(COLUMN) * CELL + 4
        } else {
            HEIGHT
        }
    }

    fn middle(&self) -> usize {
        self.y + self.height() / 2
    }

    /// The cells, each with where it is.
    fn placed(&self) -> impl Iterator<Item = (&Cell, (usize, usize))> {
        let spots = (0..).map(|place| self.spot(place));
        self.cells.iter().zip(spots)
    }

    fn spot(&self, place: usize) -> (usize, usize) {
        if self.is_group() {
            let (column, row) = (place / COLUMN, place % COLUMN);
            (self.x + column * WIDTH, self.y + TITLE + row * CELL)
        } else {
            (self.x, self.y)
        }
    }

    fn row(&self) -> usize {
        if self.is_group() { CELL } else { HEIGHT }
    }
}

impl Edge {
    /// A line that leaves and arrives level.
    fn path(&self) -> String {
        let ((x, y), (to_x, to_y)) = (self.from, self.to);
        if let Some(lane) = self.lane {
            let (up, down) = (x + ACROSS, to_x.saturating_sub(ACROSS));
            let (bend, back) = (x + ACROSS / 2, to_x.saturating_sub(ACROSS / 2));
            return format!(
                "M{x} {y}C{bend} {y} {bend} {lane} {up} {lane}H{down}C{back} {lane} {back} {to_y} {to_x} {to_y}"
            );
        }
        let half = usize::midpoint(x, to_x);
        format!("M{x} {y}C{half} {y} {half} {to_y} {to_x} {to_y}")
    }
}

// A template, which escapes what it shows.
impl HtmlSafe for Graph {}

/// The nodes in the order of their first tasks.
fn nodes(tasks: &[TaskView]) -> Vec<Node> {
    let layers = layers(tasks);
    let base = |task: &TaskView| task.name.as_str().split('.').next().map(str::to_owned);
    let mut groups: BTreeMap<(Option<String>, usize), Vec<usize>> = BTreeMap::new();
    for (index, task) in tasks.iter().enumerate() {
        groups
            .entry((base(task), layers[index]))
            .or_default()
            .push(index);
    }
    let mut members: Vec<Vec<usize>> = groups.into_values().collect();
    members.sort();
    let of_task: BTreeMap<&TaskName, usize> = members
        .iter()
        .enumerate()
        .flat_map(|(node, tasks)| tasks.iter().map(move |task| (node, *task)))
        .map(|(node, task)| (&tasks[task].name, node))
        .collect();
    members
        .iter()
        .map(|own| node(tasks, own, &of_task, &layers))
        .collect()
}

fn node(
    tasks: &[TaskView],
    own: &[usize],
    of_task: &BTreeMap<&TaskName, usize>,
    layers: &[usize],
) -> Node {
    let first = own.first().map_or("", |task| tasks[*task].name.as_str());
    let title = match own {
        [_] => "",
        _ => first.split('.').next().unwrap_or_default(),
    };
    let cell = |task: &TaskView| {
        let name = task.name.as_str();
        let own = name
            .strip_prefix(title)
            .unwrap_or(name)
            .trim_start_matches('.');
        Cell {
            task: task.name.clone(),
            name: shorten(if own.is_empty() { name } else { own }, NAME),
            state: State::of_task(&task.state),
            has_begun: task.state.attempt().get() > 0,
        }
    };
    let needs = own.iter().flat_map(|task| &tasks[*task].needs);
    Node {
        title: shorten(title, NAME),
        cells: own.iter().map(|task| cell(&tasks[*task])).collect(),
        layer: own.first().map_or(0, |task| layers[*task]),
        needs: needs
            .filter_map(|need| of_task.get(need).copied())
            .collect(),
        x: 0,
        y: 0,
    }
}

/// How many tasks, one after the other, come before each.
fn layers(tasks: &[TaskView]) -> Vec<usize> {
    let places = tasks.iter().enumerate();
    let place: BTreeMap<&TaskName, usize> =
        places.map(|(place, task)| (&task.name, place)).collect();
    let mut layers = vec![0; tasks.len()];
    // A task may stand before what it needs; there are no circles, so each round settles a layer.
    for _ in 0..tasks.len() {
        let mut is_settled = true;
        for (index, task) in tasks.iter().enumerate() {
            let needs = task.needs.iter().filter_map(|need| place.get(need));
            let layer = needs.map(|need| layers[*need] + 1).max().unwrap_or(0);
            is_settled &= layers[index] == layer;
            layers[index] = layer;
        }
        if is_settled {
            break;
        }
    }
    layers
}

/// Gives each node its place; gives the width of all.
fn place(nodes: &mut [Node]) -> usize {
    let count = nodes.iter().map(|node| node.layer + 1).max().unwrap_or(0);
    let in_layer = |nodes: &[Node], layer| -> Vec<usize> {
        (0..nodes.len())
            .filter(|index| nodes[*index].layer == layer)
            .collect()
    };
    let tall = |nodes: &[Node], own: &[usize]| {
        let heights: usize = own.iter().map(|node| nodes[*node].height() + DOWN).sum();
        heights.saturating_sub(DOWN)
    };
    let tallest = (0..count)
        .map(|layer| tall(nodes, &in_layer(nodes, layer)))
        .max();
    let (tallest, mut x) = (tallest.unwrap_or(0), 1);
    for layer in 0..count {
        let mut own = in_layer(nodes, layer);
        // Near what they need, so that edges seldom cross.
        own.sort_by_key(|node| {
            let needs = &nodes[*node].needs;
            let heights: usize = needs.iter().map(|need| nodes[*need].middle()).sum();
            (heights / needs.len().max(1), *node)
        });
        let mut y = LANE + (tallest - tall(nodes, &own)) / 2;
        let mut widest = 0;
        for node in own {
            (nodes[node].x, nodes[node].y) = (x, y);
            y += nodes[node].height() + DOWN;
            widest = widest.max(nodes[node].width());
        }
        x += widest + ACROSS;
    }
    x.saturating_sub(ACROSS) + 1
}

/// The edges that no others imply.
fn edges(nodes: &[Node], height: usize) -> Vec<Edge> {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|node| nodes[*node].layer);
    let mut before: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); nodes.len()];
    for node in &order {
        let all = nodes[*node].needs.iter();
        let far: BTreeSet<usize> = all.flat_map(|need| &before[*need]).copied().collect();
        before[*node] = far;
        before[*node].extend(&nodes[*node].needs);
    }
    let implied = |node: usize, need: usize| {
        let mut others = nodes[node].needs.iter();
        others.any(|other| before[*other].contains(&need))
    };
    let mut edges = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        for need in node.needs.iter().filter(|need| !implied(index, **need)) {
            let from = &nodes[*need];
            let nearest = if from.middle() * 2 < height {
                LANE / 2
            } else {
                height - LANE / 2
            };
            edges.push(Edge {
                lane: (node.layer > from.layer + 1).then_some(nearest),
                from: (from.x + from.width(), from.middle()),
                to: (node.x, node.middle()),
            });
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, needs: &[&str]) -> TaskView {
        serde_json::from_value(serde_json::json!({
            "name": name, "kind": "execute-shell", "needs": needs, "state": "waiting",
        }))
        .unwrap()
    }

    fn graph(tasks: &[TaskView]) -> Graph {
        Graph::of(&"job#1".parse().unwrap(), tasks)
    }

    #[test]
    fn each_task_stands_right_of_what_it_needs() {
        let tasks = [
            task("last", &["left", "right"]),
            task("left", &["first"]),
            task("right", &["first"]),
            task("first", &[]),
        ];
        let graph = graph(&tasks);
        for node in &graph.nodes {
            for need in &node.needs {
                let need = &graph.nodes[*need];
                assert!(need.x + need.width() < node.x);
            }
            assert!(node.x + node.width() <= graph.width && node.y + node.height() <= graph.height);
        }
        assert_eq!(graph.edges.len(), 4);
    }

    #[test]
    fn what_others_imply_is_not_drawn() {
        let tasks = [
            task("a", &[]),
            task("b", &["a"]),
            task("c", &["a", "b"]),
            task("post", &["a", "b", "c"]),
        ];
        assert_eq!(graph(&tasks).edges.len(), 3);
    }

    #[test]
    fn cells_stand_together_and_no_two_nodes_overlap() {
        let mut tasks = vec![task("fetch", &[])];
        tasks.extend((0..20).map(|cell| task(&format!("test.os{cell}"), &["fetch"])));
        tasks.extend((0..5).map(|other| task(&format!("other{other}"), &["fetch"])));
        let graph = graph(&tasks);
        assert_eq!(graph.nodes.len(), 7);
        for (index, one) in graph.nodes.iter().enumerate() {
            for other in &graph.nodes[index + 1..] {
                let beside = one.x + one.width() <= other.x || other.x + other.width() <= one.x;
                let above = one.y + one.height() <= other.y || other.y + other.height() <= one.y;
                assert!(beside || above, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn names_that_look_like_cells_make_no_circle() {
        let tasks = [task("a.x", &[]), task("b", &["a.x"]), task("a.y", &["b"])];
        assert_eq!(graph(&tasks).edges.len(), 2);
        assert_eq!(graph(&[]).nodes.len(), 0);
    }
}
