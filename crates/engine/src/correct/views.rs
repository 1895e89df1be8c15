//! Texts and bytes without views. A view points into buffers that many batches share, and a sort counts such a buffer
//! once for each of them: it was refused memory long before it had taken any. Only `arrow_cast` names such a type.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value, ValueWithSpan,
};

/// Functions to which a text names a type.
pub(crate) const NAMES_TYPES: [&str; 2] = ["arrow_cast", "arrow_try_cast"];

/// Makes `arrow_cast(x, 'Utf8View')` a cast to the large type, which holds as much.
pub(super) fn without(expr: &mut Expr) {
    let Expr::Function(call) = expr else { return };
    let name = call.name.to_string().to_lowercase();
    let FunctionArguments::List(list) = &mut call.args else { return };
    if !NAMES_TYPES.contains(&name.trim_matches('"')) {
        return;
    }
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan { value, .. })))) =
        list.args.get_mut(1)
        && let Value::SingleQuotedString(kind) = value
    {
        *kind = kind.replace("Utf8View", "LargeUtf8").replace("BinaryView", "LargeBinary");
    }
}
