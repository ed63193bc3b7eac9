//! The rules of the folder `rules/`, built in, so that one binary filters out of the box. Pure.

/// Each file's name and text, in the order of names.
pub const SHIPPED: [(&str, &str); 7] = [
    DATA,
    ("rules/10_lists.cf", include_str!("../../../rules/10_lists.cf")),
    ("rules/20_text.cf", include_str!("../../../rules/20_text.cf")),
    ("rules/30_phishing.cf", include_str!("../../../rules/30_phishing.cf")),
    ("rules/40_form.cf", include_str!("../../../rules/40_form.cf")),
    ("rules/50_header.cf", include_str!("../../../rules/50_header.cf")),
    ("rules/60_offers.cf", include_str!("../../../rules/60_offers.cf")),
];

/// The one of them that holds lists only, which functions and the look into attachments need whatever rules are in force.
pub const DATA: (&str, &str) = ("rules/05_data.cf", include_str!("../../../rules/05_data.cf"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_built_in() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let entries = std::fs::read_dir(root.join("rules")).unwrap();
        let names = entries.map(|entry| format!("rules/{}", entry.unwrap().file_name().to_string_lossy()));
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".cf")).collect();
        names.sort();
        assert_eq!(SHIPPED.map(|(name, _)| name.to_owned()).to_vec(), names);
    }
}
