//! `distci approve BUILD`, `distci reject BUILD`: answers to tasks that ask whether to go on.

use anyhow::Result;
use distci_model::id::TaskName;
use distci_model::wire::{AnswerRequest, BuildView, TaskState};

use crate::cli::Answer;
use crate::connection::Connection;
use crate::exit::{Ended, Exit};
use crate::out::Out;

pub(crate) async fn run(
    connection: &Connection,
    arguments: Answer,
    approved: bool,
    out: &mut Out,
) -> Result<Exit> {
    let client = connection.client()?;
    let view = arguments.build.view(&client).await?;
    let task = match arguments.task {
        Some(task) => task,
        None => the_one_that_asks(&view)?,
    };
    let request = AnswerRequest {
        approved,
        comment: arguments.comment,
    };
    client.answer_task(&view.build, &task, &request).await?;
    let done = if approved { "approved" } else { "rejected" };
    out.say(format_args!("{done} {task} of {}", view.build))?;
    Ok(Exit::Ok)
}

fn the_one_that_asks(view: &BuildView) -> Result<TaskName> {
    let asks = |state: &TaskState| matches!(state, TaskState::Asking { .. });
    let asking: Vec<_> = view.tasks.iter().filter(|task| asks(&task.state)).collect();
    let name = &view.build;
    match asking.as_slice() {
        [one] => Ok(one.name.clone()),
        [] => Err(Ended::failed(format!(
            "no task of {name} asks for approval now"
        ))),
        several => {
            let names: Vec<&str> = several.iter().map(|task| task.name.as_str()).collect();
            let names = names.join(", ");
            Err(Ended::failed(format!(
                "several tasks of {name} ask: --task, one of {names}"
            )))
        }
    }
}
