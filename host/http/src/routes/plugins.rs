//! Routes for plugins, rebuilds, canaries, traces and reprojections.

use axum::http::StatusCode;

use super::Routes;
use crate::change::Change;
use crate::doc::{Doc, Query, Tag, choice, event, header, text};
use crate::{plugins, rebuilds, trials};
use lantern_api::{
    Activate, CanaryReport, ChangedVersion, Differences, LoadFailure, NewCanary, NewRebuild, Pause,
    PluginDetail, PluginSummary, Rebuild, Removed, Reproject, Reprojected, SettingsChanges, SourceDecided,
    SourceDecision, TakenOver, Trace, VersionDescription, VersionWork,
};
use lantern_model::settings::PluginSettings;

pub fn routes(routes: Routes, component_bytes_max: u64) -> Routes {
    trials(rebuilds(changes(versions(reads(routes), component_bytes_max))))
}

fn doc(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(Tag::Plugins, id, summary)
}

/// A change of a plugin, which the lifecycle may reject.
fn act(id: &'static str, summary: &'static str) -> Doc {
    doc(id, summary)
        .fails_with(StatusCode::CONFLICT)
        .fails_with(StatusCode::UNPROCESSABLE_ENTITY)
}

fn version(name: &'static str) -> Query {
    text(
        name,
        "A digest, a digest prefix of at least eight digits, or a version number.",
    )
    .required()
    .example("1.0.0")
}

fn reads(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/plugins",
            plugins::list,
            doc("listPlugins", "List plugins").answers_list::<PluginSummary>("All plugins, ordered by name."),
        )
        .read(
            "/api/v1/plugins/{plugin}",
            plugins::show,
            doc("getPlugin", "Get a plugin").answers::<PluginDetail>("The plugin with its versions, settings and resource use."),
        )
        .read(
            "/api/v1/plugins/{plugin}/differences",
            plugins::differences,
            doc("pluginDifferences", "Compare two versions")
                .query(version("from"))
                .query(version("to"))
                .answers::<Differences>("The differences and their effects."),
        )
        .read(
            "/api/v1/plugins/{plugin}/description",
            plugins::description,
            doc(
                "describeVersion",
                "Describe a version",
            )
            .query(version("version"))
            .answers::<VersionDescription>("Sources, tables, writes, imports and limits of the version."),
        )
        .read_as_operator(
            "/api/v1/plugins/{plugin}/component",
            "component.download",
            plugins::component,
            doc("getComponent", "Download a component")
                .query(version("version"))
                .answers_bytes(
                    "application/wasm",
                    "The component as installed. The header `Lantern-Signature` has its signature, if one is stored.",
                ),
        )
        .read(
            "/api/v1/plugins/{plugin}/settings",
            plugins::settings,
            doc("getSettings", "Get settings")
                .answers::<PluginSettings>("The settings of the plugin; absent settings use the defaults for all plugins."),
        )
        .read(
            "/api/v1/plugin-files",
            plugins::load_failures,
            doc(
                "listRefusals",
                "List load failures",
            )
            .answers_list::<LoadFailure>("Components of the plugin directory and active versions that the host could not load, with the reason."),
        )
}

/// Changes of the versions of a plugin.
fn versions(routes: Routes, component_bytes_max: u64) -> Routes {
    let within = |path, action| Change::post(path, action).within(plugins::INSTALL_TIME);
    routes
        .change(
            within("/api/v1/plugins", "plugin.install").with_component(component_bytes_max),
            plugins::install,
            act("installPlugin", "Install a component")
                .description("Checks and stores the component. It does not run unless `activate` is true.")
                .query(choice(
                    "activate",
                    &["true", "false"],
                    "Whether to activate the version at once.",
                ))
                .parameter(header(
                    "Lantern-Signature",
                    "The `.minisig` file of a signed component, in base64.",
                ))
                .takes_bytes("application/wasm", "The component.")
                .answers_with::<ChangedVersion>(
                    StatusCode::CREATED,
                    "The installed version and its differences from the active version.",
                )
                .fails_with(StatusCode::NOT_FOUND),
        )
        .change(
            within("/api/v1/plugins/{plugin}/activate", "plugin.activate"),
            plugins::activate,
            act("activatePlugin", "Activate a version")
                .description(
                    "The host switches between two batches, in one transaction, and then retries open dead letters with \
                     the version. Without a body it activates the newest version.",
                )
                .may_take::<Activate>()
                .answers::<ChangedVersion>("The active version and its differences from the previous one."),
        )
        .change(
            within("/api/v1/plugins/{plugin}/rollback", "plugin.rollback"),
            plugins::rollback,
            act("rollbackPlugin", "Roll back to the previous version")
                .answers::<ChangedVersion>("The active version and its differences from the previous one."),
        )
}

fn changes(routes: Routes) -> Routes {
    routes
        .change(
            Change::post("/api/v1/plugins/{plugin}/pause", "plugin.pause"),
            plugins::pause,
            act("pausePlugin", "Pause a plugin")
                .may_take::<Pause>()
                .answers::<PluginSummary>("The paused plugin."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/resume", "plugin.resume"),
            plugins::resume,
            act("resumePlugin", "Resume a plugin").answers::<PluginSummary>("The plugin."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/take-over", "plugin.take-over"),
            plugins::take_over,
            act("takeOverConsumers", "Take over consumers of another host")
                .description(
                    "A host never reads through a consumer that belongs to a host with another database. This route makes \
                     this host the owner of the consumers of the plugin. It fails while the other host reads through \
                     them.",
                )
                .answers::<TakenOver>("The consumers with their previous owners."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/sources/{source}/accept", "source.accept"),
            plugins::accept,
            act("acceptSource", "Accept the stream of a source")
                .description(
                    "For a source in the state `undecided`, or one that waits for a second observation: the stored anchors do \
                     not prove whether its stream is the one that it has read. The operator decides.",
                )
                .takes::<SourceDecision>()
                .answers::<SourceDecided>("The decision. It persists across restarts."),
        )
        .change(
            Change::put("/api/v1/plugins/{plugin}/settings", "plugin.set"),
            plugins::change_settings,
            act("changeSettings", "Change settings")
                .description("The changes are applied atomically: if one is invalid, none is applied. Other settings keep their values.")
                .takes::<SettingsChanges>()
                .answers::<PluginSettings>("All settings of the plugin."),
        )
        .change(
            Change::delete("/api/v1/plugins/{plugin}", "plugin.remove"),
            plugins::remove,
            act("removePlugin", "Remove a plugin")
                .query(
                    choice("tables", &["keep", "drop"], "Whether to keep or drop the tables of the plugin.")
                        .required()
                        .example("keep"),
                )
                .answers::<Removed>("The plugin and the dropped tables."),
        )
}

fn rebuilds(routes: Routes) -> Routes {
    let doc = |id, summary| Doc::new(Tag::Rebuilds, id, summary);
    routes
        .read(
            "/api/v1/rebuilds",
            rebuilds::list,
            doc("listRebuilds", "List rebuilds").answers_list::<Rebuild>("All rebuilds."),
        )
        .read(
            "/api/v1/rebuilds/{id}",
            rebuilds::show,
            doc("getRebuild", "Get a rebuild").answers::<Rebuild>("The rebuild and its progress."),
        )
        .read(
            "/api/v1/rebuilds/{id}/events",
            rebuilds::events,
            doc("followRebuild", "Follow a rebuild").answers_events(
                "Events until the rebuild ends.",
                [event::<Rebuild>(
                    "message",
                    "the rebuild, at once and every half second. The event has no name.",
                )],
            ),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/rebuild", "rebuild.begin").within(plugins::INSTALL_TIME),
            rebuilds::begin,
            doc("beginRebuild", "Rebuild tables")
                .description(
                    "Rebuilds the tables of a plugin in the background. When the new tables have caught up, one \
                     transaction swaps them in.",
                )
                .takes::<NewRebuild>()
                .answers_with::<Rebuild>(StatusCode::ACCEPTED, "The rebuild has started.")
                .fails_with(StatusCode::CONFLICT)
                .fails_with(StatusCode::UNPROCESSABLE_ENTITY),
        )
        .change(
            Change::delete("/api/v1/rebuilds/{id}", "rebuild.cancel"),
            rebuilds::cancel,
            doc("cancelRebuild", "Cancel a rebuild")
                .answers::<Rebuild>("The cancelled rebuild. The tables in use are unchanged.")
                .fails_with(StatusCode::CONFLICT),
        )
}

fn trials(routes: Routes) -> Routes {
    let doc = |id, summary| Doc::new(Tag::Trials, id, summary);
    let key = "Primary key of the row; a JSON array of strings if the key has several columns. `ORIGIN:SEQUENCE:ROW`, \
               the identity of the row, works for every table.";
    routes
        .read(
            "/api/v1/trace",
            trials::trace,
            doc("trace", "Trace a row")
                .query(text("table", "Table name.").required())
                .query(text("key", key).required())
                .answers::<Trace>("The row with its message and its version.")
                .fails_with(StatusCode::NOT_FOUND)
                .fails_with(StatusCode::CONFLICT)
                .fails_with(StatusCode::UNPROCESSABLE_ENTITY),
        )
        .read(
            "/api/v1/plugins/{plugin}/written",
            trials::written,
            doc("writtenBy", "List the work of a version")
                .query(version("version"))
                .answers::<VersionWork>("Ledger ranges that the version handled, and its rows per table."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/canary", "plugin.canary").within(trials::TRIAL_TIME),
            trials::canary,
            doc("canary", "Run a canary")
                .description(
                    "The candidate and the active version project the same messages into temporary databases. A canary \
                     changes nothing on the host. The response is sent when the canary ends, which can take more \
                     than a quarter of an hour with live messages.",
                )
                .takes::<NewCanary>()
                .answers::<CanaryReport>("The results of both versions.")
                .fails_with(StatusCode::CONFLICT)
                .fails_with(StatusCode::UNPROCESSABLE_ENTITY),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/reproject", "plugin.reproject").within(trials::TRIAL_TIME),
            trials::reproject,
            doc("reproject", "Reproject the messages of a version")
                .description("The active version processes again the messages that another version handled.")
                .takes::<Reproject>()
                .answers::<Reprojected>("The result, also of an incomplete reprojection.")
                .fails_with(StatusCode::CONFLICT)
                .fails_with(StatusCode::UNPROCESSABLE_ENTITY),
        )
}
