//! `SIMILAR TO`, and `LIKE` with an escape of its own (SQL:2016, 8.5 and 8.6).
//!
//! The engine takes the pattern of `SIMILAR TO` for a regular expression that may match anywhere, and `LIKE` knows no
//! escape but the backslash.

use std::str::Chars;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_datafusion_err};
use datafusion::functions::regex::expr_fn::regexp_like;
use datafusion::logical_expr::expr::Like;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    cast as cast_to, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::walk;

/// Writes patterns as the engine reads them.
#[derive(Debug)]
pub(super) struct StandardPatterns;

impl AnalyzerRule for StandardPatterns {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        walk::expressions(plan, &|expr| matches!(expr, Expr::SimilarTo(_) | Expr::Like(_)), &standard)
    }

    fn name(&self) -> &'static str {
        "standard_patterns"
    }
}

fn standard(expr: Expr, _: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::SimilarTo(Like { negated, expr, pattern, escape_char, .. }) => {
            let pattern = translated(*pattern, Language::Similar, escape_char)?;
            let similar = regexp_like(*expr, pattern, None);
            Ok(Transformed::yes(if negated { Expr::Not(similar.into()) } else { similar }))
        }
        Expr::Like(Like { negated, expr, pattern, escape_char: Some(escape), case_insensitive })
            if escape != '\\' =>
        {
            let pattern = Box::new(translated(*pattern, Language::Like, Some(escape))?);
            Ok(Transformed::yes(Expr::Like(Like::new(negated, expr, pattern, None, case_insensitive))))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A pattern in the engine's language: at once for a constant, row by row for any other value.
fn translated(pattern: Expr, language: Language, escape: Option<char>) -> Result<Expr> {
    if let Expr::Literal(value, _) = &pattern
        && let Some(text) = value.try_as_str()
    {
        let text = text.map(|text| language.translate(text, escape)).transpose()?;
        return Ok(lit(ScalarValue::Utf8(text)));
    }
    let signature = Signature::any(1, Volatility::Immutable);
    let function = ScalarUDF::new_from_impl(Translate { language, escape, signature });
    Ok(function.call(vec![cast_to(pattern, DataType::Utf8)]))
}

/// The language of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Language {
    Like,
    Similar,
}

impl Language {
    fn translate(self, pattern: &str, escape: Option<char>) -> Result<String> {
        match self {
            Language::Like => like(pattern, escape),
            Language::Similar => similar(pattern, escape.unwrap_or('\\')),
        }
    }
}

/// A pattern of LIKE with the backslash for its escape.
fn like(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut made = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = match Some(c) == escape {
            true => Some(chars.next().ok_or_else(|| unfinished(pattern))?),
            false => (c == '\\').then_some(c),
        };
        match literal {
            Some(literal) => {
                if matches!(literal, '%' | '_' | '\\') {
                    made.push('\\');
                }
                made.push(literal);
            }
            None => made.push(c),
        }
    }
    Ok(made)
}

/// A pattern of SIMILAR TO as a regular expression for the whole text.
fn similar(pattern: &str, escape: char) -> Result<String> {
    let mut made = String::with_capacity(pattern.len() + 16);
    made.push_str("^(?s:");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == escape => push_literal(&mut made, chars.next().ok_or_else(|| unfinished(pattern))?),
            '[' => push_list(&mut made, &mut chars, escape).ok_or_else(|| unfinished(pattern))?,
            '%' => made.push_str(".*"),
            '_' => made.push('.'),
            '|' | '*' | '+' | '?' | '{' | ',' | '}' | '(' | ')' => made.push(c),
            c => push_literal(&mut made, c),
        }
    }
    made.push_str(")$");
    Ok(made)
}

/// Copies a list of characters, such as `[^a-c]` or `[[:digit:]]`, up to its end. `None` if it has none.
fn push_list(made: &mut String, chars: &mut Chars<'_>, escape: char) -> Option<()> {
    made.push('[');
    loop {
        match chars.next()? {
            ']' => {
                made.push(']');
                return Some(());
            }
            c if c == escape => push_literal(made, chars.next()?),
            c @ ('^' | '-') => made.push(c),
            '[' if chars.as_str().starts_with(':') => {
                let end = chars.as_str().find(":]")? + ":]".len();
                let (class, rest) = chars.as_str().split_at(end);
                made.push('[');
                made.push_str(class);
                *chars = rest.chars();
            }
            c => push_literal(made, c),
        }
    }
}

fn push_literal(pattern: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        pattern.push('\\');
    }
    pattern.push(c);
}

fn unfinished(pattern: &str) -> datafusion::error::DataFusionError {
    exec_datafusion_err!("the pattern '{pattern}' ends after an escape or inside of brackets")
}

/// The function that translates the patterns of a column.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Translate {
    language: Language,
    escape: Option<char>,
    signature: Signature,
}

impl ScalarUDFImpl for Translate {
    fn name(&self) -> &'static str {
        "translated_pattern"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let patterns = cast(&call.args[0].to_array(call.number_rows)?, &DataType::Utf8)?;
        let translate = |pattern: Option<&str>| {
            pattern.map(|pattern| self.language.translate(pattern, self.escape)).transpose()
        };
        let made = patterns.as_string::<i32>().iter().map(translate).collect::<Result<StringArray>>()?;
        Ok(ColumnarValue::Array(Arc::new(made) as ArrayRef))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_like() {
        let check = |pattern: &str, expected: &str| assert_eq!(like(pattern, Some('!')).unwrap(), expected);
        check("%!e%", "%e%");
        check("!%!_!!", "\\%\\_!");
        check("a\\b", "a\\\\b");
        check("ü_", "ü_");
        assert!(like("a!", Some('!')).is_err());
    }

    #[test]
    fn patterns_of_similar_to() {
        let check = |pattern: &str, expected: &str| {
            assert_eq!(similar(pattern, '\\').unwrap(), format!("^(?s:{expected})$"), "{pattern}");
        };
        check("a%", "a.*");
        check("a_(b|c)+", "a.(b|c)+");
        check("1.5^$", "1\\.5\\^\\$");
        check("\\%x", "\\%x");
        check("[^a-c%]{2,3}", "[^a-c\\%]{2,3}");
        check("[[:digit:]]", "[[:digit:]]");
        check("[\\]]", "[\\]]");
        for pattern in ["a\\", "[ab", "[[:digit]"] {
            assert!(similar(pattern, '\\').is_err(), "{pattern}");
        }
    }
}
