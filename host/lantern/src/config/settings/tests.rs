//! Tests of the table of settings.

use super::*;

#[test]
fn paths_are_unique_and_no_section_is_a_setting() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        assert!(
            SETTINGS[..index].iter().all(|other| other.path != setting.path),
            "{}",
            setting.path
        );
        assert!(!is_section(setting.path), "{}", setting.path);
        assert!(setting.doc.ends_with('.'), "{} needs a sentence", setting.path);
    }
}

#[test]
fn only_similar_settings_are_suggested() {
    assert_eq!(nearest("broker.uri"), Some("broker.url"));
    assert_eq!(nearest("url"), Some("broker.url"));
    assert_eq!(nearest("data-dir"), Some("data_dir"));
    assert_eq!(nearest("limits.memory_max"), Some("limits.memory"));
    assert_eq!(nearest("zebra"), None);
}
