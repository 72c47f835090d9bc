//! From the tasks as they are written to the tasks of a build.
//!
//! Owns the cells of a matrix: which there are, what they are called, which cells need which; and
//! the place of `post` tasks, behind all others, and of the task that reads the job's file, before them.
//! A flat job has neither matrix nor `post`, and is what everything but its owner's eyes works on.

use std::collections::{BTreeMap, BTreeSet};

use super::pipeline::{Matrix, Need, Scalar};
use super::scope::fill_some;
use super::{Action, GitCheckout, JobConfig, TaskConfig};
use crate::id::TaskName;

/// Most tasks of a build, each cell counted.
pub const MAX_TASKS: usize = 256;

/// The values of one cell.
pub(super) type Cell = BTreeMap<String, String>;

/// Something that is wrong with a job as a whole: where, and what.
pub(super) struct Misfit {
    pub(super) path: String,
    pub(super) message: String,
}

/// A task of a build, and where in the file it is written.
pub(super) struct FlatTask {
    pub(super) path: String,
    pub(super) task: TaskConfig,
}

/// The tasks of a build of `job`, with everything that is wrong with their cells.
pub(super) fn flatten(job: &JobConfig) -> (Vec<FlatTask>, Vec<Misfit>) {
    let mut misfits = Vec::new();
    let main = entries(&job.tasks, "tasks", &mut misfits);
    let after_all: Vec<TaskName> = main.iter().flat_map(Entry::names).collect();
    let post = entries(&job.post, "post", &mut misfits);
    let mut flat = Vec::new();
    for entry in &main {
        entry.flatten(&main, &[], &mut flat, &mut misfits);
    }
    let reading = reading(job);
    let first: Vec<Need> = reading
        .iter()
        .map(|it| Need::all(it.task.name.clone()))
        .collect();
    for root in flat.iter_mut().filter(|flat| flat.task.needs.is_empty()) {
        root.task.needs.clone_from(&first);
    }
    for entry in &post {
        entry.flatten(&post, &after_all, &mut flat, &mut misfits);
    }
    if let Some(default) = &job.isolation {
        for FlatTask { task, .. } in &mut flat {
            if matches!(task.action, Action::ExecuteShell(_)) {
                let own = task.isolation.take().unwrap_or_default();
                task.isolation = Some(own.or(default));
            }
        }
    }
    if flat.len() > MAX_TASKS {
        let message = format!(
            "{} tasks, cells counted; the limit is {MAX_TASKS}",
            flat.len()
        );
        misfits.push(Misfit {
            path: "tasks".to_owned(),
            message,
        });
    }
    let flat = reading.into_iter().chain(flat).collect::<Vec<_>>();
    check_names(&flat, &mut misfits);
    (flat, misfits)
}

/// The task that reads the rest of the job, which comes before all others. A flat job has it already.
fn reading(job: &JobConfig) -> Option<FlatTask> {
    let first = job.tasks.first().map(|task| &task.action);
    if matches!(first, Some(Action::JobFile(_))) {
        return None;
    }
    Some(FlatTask {
        path: "job_file".to_owned(),
        task: job.job_file.as_ref()?.task()?,
    })
}

/// One written task with its cells.
struct Entry<'a> {
    path: String,
    task: &'a TaskConfig,
    cells: Vec<(TaskName, Cell)>,
}

fn entries<'a>(tasks: &'a [TaskConfig], list: &str, misfits: &mut Vec<Misfit>) -> Vec<Entry<'a>> {
    let entry = |(index, task): (usize, &'a TaskConfig)| {
        let path = format!("{list}[{index}]");
        let cells = match &task.matrix {
            None => vec![(task.name.clone(), Cell::new())],
            Some(matrix) => named_cells(&path, task, matrix, misfits),
        };
        Entry { path, task, cells }
    };
    tasks.iter().enumerate().map(entry).collect()
}

fn named_cells(
    path: &str,
    task: &TaskConfig,
    matrix: &Matrix,
    misfits: &mut Vec<Misfit>,
) -> Vec<(TaskName, Cell)> {
    let path = format!("{path}.matrix");
    let mut misfit = |message: String| {
        let path = path.clone();
        misfits.push(Misfit { path, message });
    };
    let cells = match cells(matrix) {
        Ok(cells) => cells,
        Err(message) => {
            misfit(message);
            return Vec::new();
        }
    };
    if cells.is_empty() {
        misfit("no cell is left".to_owned());
    }
    let mut named = Vec::with_capacity(cells.len());
    for cell in cells {
        match cell_name(&task.name, &cell).parse() {
            Ok(name) => named.push((name, cell)),
            Err(error) => misfit(format!("the name of a cell: {error}")),
        }
    }
    named
}

/// The combinations of a matrix, or why there are none.
pub(super) fn cells(matrix: &Matrix) -> Result<Vec<Cell>, String> {
    let product = matrix
        .axes
        .values()
        .try_fold(1_usize, |product, values| product.checked_mul(values.len()));
    // The number of cells is known before any is made.
    if product.is_none_or(|product| product > MAX_TASKS) {
        let many = product.map_or("far more".to_owned(), |product| product.to_string());
        return Err(format!("{many} cells; the limit is {MAX_TASKS}"));
    }
    let mut cells = vec![Cell::new()];
    for (axis, values) in &matrix.axes {
        let with = |cell: &Cell| {
            let cell = cell.clone();
            values.iter().map(move |value| {
                let mut cell = cell.clone();
                cell.insert(axis.clone(), value.0.clone());
                cell
            })
        };
        cells = cells.iter().flat_map(with).collect();
    }
    if matrix.axes.is_empty() {
        cells.clear();
    }
    cells.retain(|cell| !matrix.exclude.iter().any(|wanted| agrees(cell, wanted)));
    let product = cells.len();
    for more in &matrix.include {
        let own: BTreeMap<_, _> = more
            .iter()
            .filter(|(axis, _)| matrix.axes.contains_key(*axis))
            .map(|(axis, value)| (axis.clone(), value.clone()))
            .collect();
        let mut added = false;
        for cell in &mut cells[..product] {
            if !own.is_empty() && agrees(cell, &own) {
                cell.extend(
                    more.iter()
                        .map(|(axis, value)| (axis.clone(), value.0.clone())),
                );
                added = true;
            }
        }
        if !added {
            let cell = more
                .iter()
                .map(|(axis, value)| (axis.clone(), value.0.clone()));
            cells.push(cell.collect());
        }
    }
    Ok(cells)
}

/// Whether a cell has all of these values.
fn agrees(cell: &Cell, wanted: &BTreeMap<String, Scalar>) -> bool {
    wanted
        .iter()
        .all(|(axis, value)| cell.get(axis) == Some(&value.0))
}

/// The task's name and the cell's values in the order of their axes' names: `test.x86.linux`.
fn cell_name(task: &TaskName, cell: &Cell) -> String {
    let mut name = task.to_string();
    for value in cell.values() {
        name.push('.');
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        name.extend(value.chars().map(|c| if fit(c) { c } else { '-' }));
    }
    name
}

impl Entry<'_> {
    fn names(&self) -> impl Iterator<Item = TaskName> {
        self.cells.iter().map(|(name, _)| name.clone())
    }

    /// Adds one task for each cell. `before` is needed by all of them.
    fn flatten(
        &self,
        all: &[Entry<'_>],
        before: &[TaskName],
        flat: &mut Vec<FlatTask>,
        misfits: &mut Vec<Misfit>,
    ) {
        // Of many cells the first that finds no counterpart is told of.
        let mut told = BTreeSet::new();
        for (name, cell) in &self.cells {
            let mut needs: Vec<Need> = before.iter().cloned().map(Need::all).collect();
            for (position, need) in self.task.needs.iter().enumerate() {
                let found = needed(all, need, cell);
                if found.is_empty() && told.insert(position) {
                    let message = format!("{} has no such cell", need.task);
                    misfits.push(Misfit {
                        path: format!("{}.needs[{position}]", self.path),
                        message,
                    });
                }
                needs.extend(found);
            }
            flat.push(FlatTask {
                path: self.path.clone(),
                task: in_cell(self.task, name, needs, cell),
            });
        }
    }
}

/// The cells that a cell needs.
fn needed(all: &[Entry<'_>], need: &Need, own: &Cell) -> Vec<Need> {
    let wanted: BTreeMap<String, Scalar> = need
        .cell
        .iter()
        .map(|(axis, value)| (axis.clone(), Scalar(fill_some(value, own))))
        .collect();
    all.iter()
        .filter(|entry| entry.task.name == need.task)
        .flat_map(|entry| &entry.cells)
        .filter(|(_, cell)| agrees(cell, &wanted))
        .map(|(name, _)| Need::all(name.clone()))
        .collect()
}

/// The task as one cell has it: the values of the axes are in its environment and its settings.
fn in_cell(task: &TaskConfig, name: &TaskName, needs: Vec<Need>, cell: &Cell) -> TaskConfig {
    let fill = |text: &str| fill_some(text, cell);
    let mut env = cell.clone();
    let own = task.env.iter();
    env.extend(own.map(|(name, value)| (name.clone(), fill(value))));
    let mut locks = task.locks.clone();
    for lock in &mut locks {
        lock.name = fill(&lock.name);
    }
    let mut isolation = task.isolation.clone();
    if let Some(image) = isolation.as_mut().and_then(|wanted| wanted.image.as_mut()) {
        *image = fill(image);
    }
    let mut cache = task.cache.clone();
    for cache in &mut cache {
        cache.name = fill(&cache.name);
    }
    TaskConfig {
        name: name.clone(),
        needs,
        env,
        matrix: None,
        locks,
        isolation,
        cache,
        action: action_in_cell(&task.action, fill),
        ..task.clone()
    }
}

fn action_in_cell(action: &Action, fill: impl Fn(&str) -> String) -> Action {
    let fill_all = |texts: &[String]| texts.iter().map(|text| fill(text)).collect();
    match action.clone() {
        Action::GitCheckout(git) => Action::GitCheckout(GitCheckout {
            repository: fill(&git.repository),
            reference: git.reference.as_deref().map(fill),
            ..git
        }),
        Action::ExecuteShell(mut shell) => {
            shell.nodelabels = fill_all(&shell.nodelabels);
            shell.shell = fill(&shell.shell);
            Action::ExecuteShell(shell)
        }
        Action::PublishArtifacts(mut publish) => {
            for patterns in [
                &mut publish.artifacts,
                &mut publish.junit,
                &mut publish.tap,
                &mut publish.libtest,
            ] {
                *patterns = fill_all(patterns);
            }
            Action::PublishArtifacts(publish)
        }
        Action::CopyArtifacts(mut copy) => {
            copy.artifacts = fill_all(&copy.artifacts);
            copy.build = copy.build.as_deref().map(fill);
            Action::CopyArtifacts(copy)
        }
        Action::Approve(mut approve) => {
            approve.message = fill(&approve.message);
            Action::Approve(approve)
        }
        reading @ Action::JobFile(_) => reading,
    }
}

fn check_names(flat: &[FlatTask], misfits: &mut Vec<Misfit>) {
    let mut first: BTreeMap<&TaskName, &str> = BTreeMap::new();
    for FlatTask { path, task } in flat {
        let Some(earlier) = first.insert(&task.name, path) else {
            continue;
        };
        let message = format!("{earlier} is named {:?} already", task.name.as_str());
        let path = if task.name.as_str().contains('.') && earlier == path {
            format!("{path}.matrix")
        } else {
            format!("{path}.name")
        };
        misfits.push(Misfit { path, message });
    }
}
