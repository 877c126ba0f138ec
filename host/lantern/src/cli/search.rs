//! `lantern table search`: turns full-text search in tables on and off, and shows its progress.

use clap::{Args, Subcommand};

use super::client::OutputArgs;
use super::{Failure, print, print_json, table};
use lantern_api::{SetTableSearch, Table, TableSearch};
use lantern_model::schema::TableName;

#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// Turn full-text search in tables on and off, and show its progress.
    #[command(subcommand)]
    Search(SearchCommand),
}

#[derive(Debug, Subcommand)]
pub enum SearchCommand {
    /// Build a full-text index of a table in the background and keep it up to date.
    On(TableArgs),
    /// Remove the full-text index of a table. Searches in the table read its rows again.
    Off(TableArgs),
    /// List tables with the progress of their full-text indexes.
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct TableArgs {
    /// Name of the table.
    #[arg(value_parser = TableName::parse)]
    table: TableName,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(command: &TableCommand) -> Result<(), Failure> {
    match command {
        TableCommand::Search(SearchCommand::On(args)) => set_enabled(args, true),
        TableCommand::Search(SearchCommand::Off(args)) => set_enabled(args, false),
        TableCommand::Search(SearchCommand::List(args)) => list(args),
    }
}

fn set_enabled(args: &TableArgs, enabled: bool) -> Result<(), Failure> {
    let name = &args.table;
    let path = format!("/api/v1/tables/{name}/search");
    let search: TableSearch = args.output.open()?.put_json(&path, &SetTableSearch { enabled })?;
    if args.output.json {
        return print_json(&search);
    }
    print(&match search.enabled {
        true => format!(
            "full-text search in {name} is on; rows to index: {}\nto see the progress: lantern table search list\n",
            search.rows_behind
        ),
        false => format!("full-text search in {name} is off\n"),
    })
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let tables: Vec<Table> = args.output.open()?.get_json("/api/v1/tables")?;
    args.output.print(&tables[..], render)
}

fn render(tables: &[Table]) -> String {
    if tables.is_empty() {
        return "no tables\n".to_owned();
    }
    let mut rows = vec![
        ["table", "plugin", "search", "rows to index"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(tables.iter().map(|table| {
        let (state, behind) = match table.search.enabled {
            true => ("on", table.search.rows_behind.to_string()),
            false => ("off", "-".to_owned()),
        };
        vec![table.name.clone(), table.plugin.clone(), state.to_owned(), behind]
    }));
    table::align(&rows, &[false, false, false, true], "")
}
