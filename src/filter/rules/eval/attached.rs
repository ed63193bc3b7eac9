//! What is attached, by the lists of the rule files. Ours. Pure.

use super::Function;
use crate::filter::attachment::extension;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[("check_attached_extension", |context, arguments| {
    let names = context.texts.view.parts.iter().filter_map(|part| part.name.as_deref());
    let listed = |name: &str| arguments.iter().any(|list| context.lists.has(list, &extension(name)));
    names.into_iter().any(listed)
})];
