//! Routes about plugins: what there is, what changes them, rebuilds, and a closer look.

use axum::http::StatusCode;

use super::Routes;
use crate::change::Change;
use crate::doc::{Doc, Query, Tag, choice, event, header, text};
use crate::plugins::{self, Detail, Removed, Taken, TakenOver};
use crate::{rebuilds, trials};
use lantern_api::{
    Activate, Differences, NewCanary, NewRebuild, Pause, Reproject, SettingsChanges, SourceDecided,
    SourceDecision,
};
use lantern_lifecycle::{
    CanaryReport, DescriptionView, LoadFailure, PluginView, RebuildView, Reprojected, Trace, VersionWork,
};
use lantern_model::settings::PluginSettings;

pub fn routes(routes: Routes, component_bytes_max: u64) -> Routes {
    trials(rebuilds(changes(reads(routes), component_bytes_max)))
}

fn doc(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(Tag::Plugins, id, summary)
}

/// A change of a plugin, which the lifecycle may refuse.
fn act(id: &'static str, summary: &'static str) -> Doc {
    doc(id, summary)
        .refuses(StatusCode::CONFLICT)
        .refuses(StatusCode::UNPROCESSABLE_ENTITY)
}

fn version(name: &'static str) -> Query {
    text(
        name,
        "A digest, eight digits or more of one, or a version number.",
    )
    .required()
    .example("1.0.0")
}

fn reads(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/plugins",
            plugins::list,
            doc("listPlugins", "All plugins").answers_list::<PluginView>("The plugins, by name."),
        )
        .read(
            "/api/v1/plugins/{plugin}",
            plugins::show,
            doc("getPlugin", "One plugin with all that is known of it").answers::<Detail>("The plugin."),
        )
        .read(
            "/api/v1/plugins/{plugin}/differences",
            plugins::differences,
            doc("pluginDifferences", "In what two versions differ")
                .query(version("from"))
                .query(version("to"))
                .answers::<Differences>("The differences, and what they cost."),
        )
        .read(
            "/api/v1/plugins/{plugin}/description",
            plugins::description,
            doc(
                "describeVersion",
                "What a version says of itself, and what it would run under",
            )
            .query(version("version"))
            .answers::<DescriptionView>("Sources, tables, writes, imports and limits."),
        )
        .read_as_operator(
            "/api/v1/plugins/{plugin}/component",
            "component.download",
            plugins::component,
            doc("getComponent", "The component of a version, as it was installed")
                .query(version("version"))
                .answers_bytes(
                    "application/wasm",
                    "The component; its signature, where one is kept, in the header `Lantern-Signature`.",
                ),
        )
        .read(
            "/api/v1/plugins/{plugin}/settings",
            plugins::settings,
            doc("getSettings", "What is set for a plugin")
                .answers::<PluginSettings>("The settings; what is absent is as for all plugins."),
        )
        .read(
            "/api/v1/plugin-files",
            plugins::refusals,
            doc(
                "listRefusals",
                "What of the plugin directory, or of what should run, is refused",
            )
            .answers_list::<LoadFailure>("Each with its reason."),
        )
}

fn changes(routes: Routes, component_bytes_max: u64) -> Routes {
    let within = |path, action| Change::post(path, action).within(plugins::INSTALL_TIME);
    routes
        .change(
            within("/api/v1/plugins", "plugin.install").with_component(component_bytes_max),
            plugins::install,
            act("installPlugin", "Install a component")
                .says("It is checked and kept; nothing of it runs, unless `activate` is true.")
                .query(choice(
                    "activate",
                    &["true", "false"],
                    "Whether it is made to run at once.",
                ))
                .parameter(header(
                    "Lantern-Signature",
                    "The component's `.minisig` file in base64, where it is signed.",
                ))
                .takes_bytes("application/wasm", "The component.")
                .answers_with::<Taken>(
                    StatusCode::CREATED,
                    "What came, and in what it differs from what runs.",
                )
                .refuses(StatusCode::NOT_FOUND),
        )
        .change(
            within("/api/v1/plugins/{plugin}/activate", "plugin.activate"),
            plugins::activate,
            act("activatePlugin", "Make a version run")
                .says(
                    "Between two batches, in one transaction. Without a body, the newest version. Open \
                     dead letters are tried again with it.",
                )
                .may_take::<Activate>()
                .answers::<Taken>("What runs now, and in what it differs from what ran."),
        )
        .change(
            within("/api/v1/plugins/{plugin}/rollback", "plugin.rollback"),
            plugins::rollback,
            act("rollbackPlugin", "Make the version before run again")
                .answers::<Taken>("What runs now, and in what it differs from what ran."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/pause", "plugin.pause"),
            plugins::pause,
            act("pausePlugin", "Pause a plugin")
                .may_take::<Pause>()
                .answers::<PluginView>("The plugin, paused."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/resume", "plugin.resume"),
            plugins::resume,
            act("resumePlugin", "Have a plugin go on").answers::<PluginView>("The plugin."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/take-over", "plugin.take-over"),
            plugins::take_over,
            act("takeOverConsumers", "Take over the consumers that another host left behind")
                .says(
                    "A host never reads through a consumer that belongs to a host with another database. This makes \
                     the consumers of the plugin this host's. It is refused while the other host reads through them.",
                )
                .answers::<TakenOver>("The consumers, each with its owner before."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/sources/{source}/accept", "source.accept"),
            plugins::accept,
            act("acceptSource", "Decide whether a stream is the one that was read")
                .says(
                    "For a source in the state `undecided`, or one that waits for a second observation: nothing that \
                     is stored proves that its stream is the one that it read, or that it is another one.",
                )
                .takes::<SourceDecision>()
                .answers::<SourceDecided>("The decision, which also holds after a restart."),
        )
        .change(
            Change::put("/api/v1/plugins/{plugin}/settings", "plugin.set"),
            plugins::change_settings,
            act("changeSettings", "Set something for a plugin")
                .says("What is not named stays as it is. Either all of it can be used, or nothing changes.")
                .takes::<SettingsChanges>()
                .answers::<PluginSettings>("All that is set now."),
        )
        .change(
            Change::delete("/api/v1/plugins/{plugin}", "plugin.remove"),
            plugins::remove,
            act("removePlugin", "Remove a plugin")
                .query(
                    choice("tables", &["keep", "drop"], "What becomes of its tables.")
                        .required()
                        .example("keep"),
                )
                .answers::<Removed>("The plugin, and the tables that are gone."),
        )
}

fn rebuilds(routes: Routes) -> Routes {
    let doc = |id, summary| Doc::new(Tag::Rebuilds, id, summary);
    routes
        .read(
            "/api/v1/rebuilds",
            rebuilds::list,
            doc("listRebuilds", "All rebuilds").answers_list::<RebuildView>("The rebuilds."),
        )
        .read(
            "/api/v1/rebuilds/{id}",
            rebuilds::show,
            doc("getRebuild", "One rebuild").answers::<RebuildView>("The rebuild, and how far it is."),
        )
        .read(
            "/api/v1/rebuilds/{id}/events",
            rebuilds::events,
            doc("followRebuild", "How far a rebuild is, as it goes on").answers_events(
                "Events until the rebuild ends.",
                [event::<RebuildView>(
                    "message",
                    "how far it is, now and each half second. The event has no name of its own.",
                )],
            ),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/rebuild", "rebuild.begin").within(plugins::INSTALL_TIME),
            rebuilds::begin,
            doc("beginRebuild", "Fill a plugin's tables anew")
                .says(
                    "Beside those in use; when they have caught up, one transaction puts them in the \
                     place of the old ones.",
                )
                .takes::<NewRebuild>()
                .answers_with::<RebuildView>(StatusCode::ACCEPTED, "It has begun.")
                .refuses(StatusCode::CONFLICT)
                .refuses(StatusCode::UNPROCESSABLE_ENTITY),
        )
        .change(
            Change::delete("/api/v1/rebuilds/{id}", "rebuild.cancel"),
            rebuilds::cancel,
            doc("cancelRebuild", "Give a rebuild up")
                .answers::<RebuildView>("The rebuild, cancelled; the tables in use stay.")
                .refuses(StatusCode::CONFLICT),
        )
}

fn trials(routes: Routes) -> Routes {
    let doc = |id, summary| Doc::new(Tag::Trials, id, summary);
    let key = "The row's primary key; one of several columns is a JSON array of texts. Any row is also named by \
               `ORIGIN:SEQUENCE:ROW`, the three columns of the host.";
    routes
        .read(
            "/api/v1/trace",
            trials::trace,
            doc("trace", "Where a row comes from")
                .query(text("table", "The table.").required())
                .query(text("key", key).required())
                .answers::<Trace>("The row with its message and its version.")
                .refuses(StatusCode::NOT_FOUND)
                .refuses(StatusCode::CONFLICT)
                .refuses(StatusCode::UNPROCESSABLE_ENTITY),
        )
        .read(
            "/api/v1/plugins/{plugin}/written",
            trials::written,
            doc("writtenBy", "What a version has made")
                .query(version("version"))
                .answers::<VersionWork>("The ranges of messages that it handled, and its rows."),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/canary", "plugin.canary").within(trials::TRIAL_TIME),
            trials::canary,
            doc("canary", "Try a version beside the one that runs")
                .says(
                    "Both project the same messages into databases that are thrown away; nothing of the \
                     host changes. It answers when it is over, which may be after a quarter of an hour \
                     of listening.",
                )
                .takes::<NewCanary>()
                .answers::<CanaryReport>("What both have made of the messages.")
                .refuses(StatusCode::CONFLICT)
                .refuses(StatusCode::UNPROCESSABLE_ENTITY),
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/reproject", "plugin.reproject").within(trials::TRIAL_TIME),
            trials::reproject,
            doc("reproject", "Make a version's work again")
                .says("The version that runs makes again what another one has made, from just its messages.")
                .takes::<Reproject>()
                .answers::<Reprojected>("What was done, also where it could not be finished.")
                .refuses(StatusCode::CONFLICT)
                .refuses(StatusCode::UNPROCESSABLE_ENTITY),
        )
}
