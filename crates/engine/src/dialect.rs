//! The language of statements: the engine's generic one, with the precedence of operators that PostgreSQL and DuckDB
//! have.
//!
//! ```text
//! ::   AT TIME ZONE   * / %   + -   || | & # << >> -> @> ...   LIKE IN BETWEEN   = < >   IS   NOT   AND   OR
//! ```
//!
//! The generic language binds `||` as tightly as `*`, the bitwise operators by rank, `->` and `@>` more loosely than
//! `IS`, and reads all that follows `IS DISTINCT FROM`, `AND` and `OR` included, as its right side.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// The language of statements.
#[derive(Debug, Default)]
pub struct Language(GenericDialect);

/// Writes methods that say what the generic language says.
macro_rules! as_generic {
    ($($method:ident),+ $(,)?) => {
        $(fn $method(&self) -> bool {
            self.0.$method()
        })+
    };
}

impl Dialect for Language {
    fn dialect(&self) -> TypeId {
        self.0.dialect()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }

    // Every method that the generic language has of its own.
    as_generic!(
        allow_extract_custom,
        allow_extract_single_quotes,
        support_map_literal_syntax,
        supports_array_join_syntax,
        supports_array_typedef_with_brackets,
        supports_asc_desc_in_column_definition,
        supports_bitwise_shift_operators,
        supports_comma_separated_set_assignments,
        supports_comma_separated_trim,
        supports_comment_on,
        supports_comment_optimizer_hint,
        supports_connect_by,
        supports_constraint_keyword_without_name,
        supports_create_index_with_clause,
        supports_create_view_comment_syntax,
        supports_cte_without_as,
        supports_data_type_signed_suffix,
        supports_dictionary_syntax,
        supports_empty_projections,
        supports_explain_with_utility_options,
        supports_extract_comma_syntax,
        supports_filter_during_aggregation,
        supports_from_first_select,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_install,
        supports_interpolate,
        supports_interval_options,
        supports_left_associative_joins_without_parens,
        supports_limit_by,
        supports_limit_comma,
        supports_load_extension,
        supports_match_against,
        supports_match_recognize,
        supports_multiline_comment_hints,
        supports_named_fn_args_with_assignment_operator,
        supports_nested_comments,
        supports_optimize_table,
        supports_parens_around_table_factor,
        supports_parenthesized_set_variables,
        supports_partition_by_after_order_by,
        supports_pipe_operator,
        supports_prewhere,
        supports_projection_trailing_commas,
        supports_quote_delimited_string,
        supports_select_format,
        supports_select_item_multi_column_alias,
        supports_select_wildcard_except,
        supports_select_wildcard_exclude,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_select_wildcard_replace,
        supports_set_names,
        supports_settings,
        supports_start_transaction_modifier,
        supports_string_escape_constant,
        supports_struct_literal,
        supports_try_convert,
        supports_unicode_string_literal,
        supports_update_order_by,
        supports_user_host_grantee,
        supports_values_as_table_factor,
        supports_window_clause_named_window_reference,
        supports_window_function_null_treatment_arg,
        supports_with_fill,
        supports_xml_expressions,
    );

    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::Caret | Precedence::Ampersand | Precedence::PgOther => {
                self.0.prec_value(Precedence::Pipe)
            }
            Precedence::Like => self.0.prec_value(Precedence::Between),
            // Between IS and LIKE.
            Precedence::Eq => self.0.prec_value(Precedence::Is) + 1,
            other => self.0.prec_value(other),
        }
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::StringConcat => Some(Ok(self.prec_value(Precedence::Pipe))),
            _ => None,
        }
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, left: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        let plain = parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]);
        if !plain && !parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            return None;
        }
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is));
        Some(right.map(|right| {
            let (left, right) = (Box::new(left.clone()), Box::new(right));
            if plain { Expr::IsDistinctFrom(left, right) } else { Expr::IsNotDistinctFrom(left, right) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that a text means what the other one says with all its brackets.
    fn check(text: &str, meant: &str) {
        let parse = |text: &str| {
            let language = Language::default();
            Parser::new(&language).try_with_sql(text).and_then(|mut parser| parser.parse_expr()).unwrap()
        };
        assert_eq!(bracketed(&parse(text)), bracketed(&parse(meant)), "{text}");
    }

    /// The text of an expression with brackets around every operation.
    fn bracketed(expr: &Expr) -> String {
        let both =
            |left: &Expr, op: &str, right: &Expr| format!("({} {op} {})", bracketed(left), bracketed(right));
        match expr {
            Expr::Nested(inner) => bracketed(inner),
            Expr::BinaryOp { left, op, right } => both(left, &op.to_string(), right),
            Expr::IsDistinctFrom(left, right) => both(left, "IS DISTINCT FROM", right),
            Expr::IsNotDistinctFrom(left, right) => both(left, "IS NOT DISTINCT FROM", right),
            Expr::UnaryOp { op, expr } => format!("({op} {})", bracketed(expr)),
            Expr::IsNull(expr) => format!("({} IS NULL)", bracketed(expr)),
            Expr::Like { expr, pattern, .. } => both(expr, "LIKE", pattern),
            Expr::Between { expr, low, high, .. } => {
                format!("({} BETWEEN {} AND {})", bracketed(expr), bracketed(low), bracketed(high))
            }
            Expr::InList { expr, list, .. } => format!("({} IN {})", bracketed(expr), list[0]),
            other => other.to_string(),
        }
    }

    /// PostgreSQL 15, 4.1.6: operator precedence.
    #[test]
    fn operators_bind_as_in_postgresql() {
        check("a IS NOT DISTINCT FROM b OR c", "(a IS NOT DISTINCT FROM b) OR c");
        check("x AND a IS DISTINCT FROM b AND c OR d", "((x AND (a IS DISTINCT FROM b)) AND c) OR d");
        check("NOT a IS DISTINCT FROM b OR c", "(NOT (a IS DISTINCT FROM b)) OR c");
        check("a IS DISTINCT FROM b = c", "a IS DISTINCT FROM (b = c)");
        check("a IS DISTINCT FROM b + 1 AND c", "(a IS DISTINCT FROM (b + 1)) AND c");
        check("a + 1 || b * 2 || c", "((a + 1) || (b * 2)) || c");
        check("a LIKE b || c AND d", "(a LIKE (b || c)) AND d");
        check("a = b LIKE c", "a = (b LIKE c)");
        check("a = b IN (c)", "a = (b IN (c))");
        check("a = b BETWEEN c AND d || e", "a = (b BETWEEN c AND (d || e))");
        check("a = b IS NULL", "(a = b) IS NULL");
        check("a | b & c << 1", "((a | b) & c) << 1");
        check("a -> 'b' = 'c' OR d", "((a -> 'b') = 'c') OR d");
        check("a @> b IS NULL", "(a @> b) IS NULL");
    }

    #[test]
    fn the_language_is_the_generic_one_in_all_else() {
        assert!((&Language::default() as &dyn Dialect).is::<GenericDialect>());
        for text in [
            "SELECT * EXCLUDE (a) FROM t LIMIT 1, 2",
            "SELECT {'a': 1}, MAP {'a': 1}, [1, 2][1], N'x', U&'\\0041'",
            "FROM t SELECT a, b,",
            "SELECT trim(BOTH 'x' FROM a), extract('year' FROM b), f(a => 1) FROM VALUES (1) AS t",
            "SELECT count(*) FILTER (WHERE a) FROM t GROUP BY ROLLUP (a, b)",
            "SELECT a /* b /* c */ */ FROM t |> WHERE a > 1",
        ] {
            let generic = Parser::parse_sql(&GenericDialect {}, text).unwrap();
            assert_eq!(Parser::parse_sql(&Language::default(), text).unwrap(), generic, "{text}");
        }
    }
}
