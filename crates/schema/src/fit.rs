//! Which values a column of a type holds without loss.

use crate::{table::Type, timestamp, tree::Tree};

/// The double that is exactly this number. `None` if the value is not a number or no double is exact.
pub(crate) fn exact_double(value: &Tree) -> Option<f64> {
    match value {
        Tree::Whole(whole) => exact_i64(*whole),
        Tree::Large(whole) => exact_u64(*whole),
        Tree::Double(double) => Some(*double),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "checked by the way back")]
pub(crate) fn exact_i64(whole: i64) -> Option<f64> {
    let double = whole as f64;
    (double as i128 == i128::from(whole)).then_some(double)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "checked by the way back")]
pub(crate) fn exact_u64(whole: u64) -> Option<f64> {
    let double = whole as f64;
    (double as i128 == i128::from(whole)).then_some(double)
}

/// Whether a column of type `of` holds `value` without loss. A void value fits everywhere: it becomes null.
pub(crate) fn fits(of: &Type, value: &Tree) -> bool {
    match (of, value) {
        (Type::Boolean, Tree::Bool(_))
        | (Type::Long, Tree::Whole(_))
        | (Type::String, Tree::String(_))
        | (Type::Struct(_), Tree::Object(_)) => true,
        (Type::Int, Tree::Whole(whole)) => i32::try_from(*whole).is_ok(),
        (Type::Double, Tree::Whole(_) | Tree::Large(_) | Tree::Double(_)) => exact_double(value).is_some(),
        (Type::Timestamptz, Tree::String(text)) => timestamp::parse(text).is_some(),
        (Type::List { of, .. }, Tree::Array(elements)) => elements.iter().all(|e| fits(of, e)),
        (_, value) => value.is_void(),
    }
}
