//! Refuses deep and huge statements by their tokens alone, before any recursive code sees them.
//!
//! A parser that loops over `1 + 1 + …` builds a tree as deep as the chain is long. All code that later walks or drops
//! that tree recurses, and thousands of terms have ended whole processes. A chain of common table expressions doubles
//! the plan with every step if each uses the previous one twice. One number bounds both: the weight of a statement,
//! counted here on a flat list of tokens.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError};

use crate::limits::{
    CASE_DEPTH, CUBE_COLUMNS_MAX, GROWING_FUNCTION_WEIGHT, JOIN_WEIGHT, NESTING_MAX, SUBQUERY_DEPTH_MAX,
    TABLE_DEPTH, TEXT_BYTES_MAX, TEXT_FUNCTION_WEIGHT, TOKENS_MAX, VALUE_DEPTH, WEIGHT_MAX,
};
use floe_engine::functions;
use floe_query::{Kind, Place, QueryError};

/// Checks size, nesting and weight of a statement.
///
/// # Errors
/// [`Kind::Limit`] with the place that exceeds the limit. [`Kind::Invalid`] for text that the tokenizer cannot read.
pub(crate) fn check(text: &str) -> Result<(), QueryError> {
    check_length(text)?;
    let tokens = tokens(text)?;
    if let Some(token) = tokens.get(TOKENS_MAX) {
        let message = format!("the statement has more than {TOKENS_MAX} words and signs");
        return Err(QueryError::at(Kind::Limit, message, text, place(token)));
    }
    let mut scale = Scale::default();
    for (index, token) in tokens.iter().enumerate() {
        scale.take(&tokens, index).map_err(|excess| excess.at(text, token))?;
    }
    Ok(())
}

/// Checks the length of a statement.
///
/// # Errors
/// [`Kind::Limit`] for more than [`TEXT_BYTES_MAX`].
pub(crate) fn check_length(text: &str) -> Result<(), QueryError> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the statement has {} bytes; at most {TEXT_BYTES_MAX} are read", text.len());
    Err(QueryError::new(Kind::Limit, message))
}

/// The place of a second statement, if there is one: the first token after a semicolon that is no semicolon itself.
pub(crate) fn second_statement(text: &str) -> Result<Option<Place>, QueryError> {
    let is_end = |c: char| c == ';' || c.is_whitespace();
    if !text.trim_end_matches(is_end).contains(';') {
        return Ok(None);
    }
    let tokens = tokens(text)?;
    let ends = tokens.iter().skip_while(|token| token.token != Token::SemiColon);
    Ok(ends.filter(|token| token.token != Token::SemiColon).map(place).next())
}

/// The place of `FOR SYSTEM_TIME`, `VERSION AS OF` and their like, if there is one. The parser takes them for mistakes.
pub(crate) fn past_moment(text: &str) -> Option<Place> {
    let tokens = tokens(text).ok()?;
    let is = |at: usize, words: &[&str]| match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) => words.iter().any(|known| word.value.eq_ignore_ascii_case(known)),
        _ => false,
    };
    let begins = |at: usize| match is(at, &["for"]) {
        true => is(at + 1, &["system_time", "system_version"]),
        false => is(at, &["timestamp", "version", "snapshot"]) && is(at + 1, &["as"]) && is(at + 2, &["of"]),
    };
    (0..tokens.len()).find(|at| begins(*at)).map(|at| place(&tokens[at]))
}

/// The tokens without blanks and comments.
fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, QueryError> {
    let mut tokens = Vec::new();
    Tokenizer::new(&GenericDialect {}, text).tokenize_with_location_into_buf(&mut tokens).map_err(
        |TokenizerError { message, location }| {
            let place = Place { line: location.line.max(1), column: location.column.max(1), width: 1 };
            QueryError::at(Kind::Invalid, message, text, place)
        },
    )?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    Ok(tokens)
}

fn place(token: &TokenWithSpan) -> Place {
    let (start, end) = (token.span.start, token.span.end);
    let width = if end.line == start.line { end.column.saturating_sub(start.column) } else { 1 };
    Place { line: start.line.max(1), column: start.column.max(1), width: width.max(1) }
}

/// The limit that a statement exceeds.
#[derive(Debug, PartialEq, Eq)]
enum Excess {
    Nesting,
    Subqueries,
    Weight,
    Cube,
}

impl Excess {
    fn at(self, text: &str, token: &TokenWithSpan) -> QueryError {
        let message = match self {
            Excess::Nesting => format!("brackets are nested more than {NESTING_MAX} deep"),
            Excess::Subqueries => format!(
                "subqueries are nested too deep: {} in FROM or WITH, {} as values, {} CASEs are possible",
                SUBQUERY_DEPTH_MAX / TABLE_DEPTH,
                SUBQUERY_DEPTH_MAX / VALUE_DEPTH,
                SUBQUERY_DEPTH_MAX / CASE_DEPTH,
            ),
            Excess::Weight => format!(
                "the statement is too complex: more than {WEIGHT_MAX} operators, joins and subqueries, each use \
                 of a common table expression counted with all that it holds, functions such as repeat as \
                 {GROWING_FUNCTION_WEIGHT} and such as concat as {TEXT_FUNCTION_WEIGHT}; use IN (...) instead of \
                 a chain of OR, or split the statement"
            ),
            Excess::Cube => format!("CUBE over more than {CUBE_COLUMNS_MAX} columns makes too many groups"),
        };
        QueryError::at(Kind::Limit, message, text, place(token))
    }
}

/// An open bracket.
#[derive(Default)]
struct Level {
    /// Weight of its contents so far.
    weight: u64,
    /// Depth of the complete subqueries inside it, and of the common table expressions that it uses.
    below: u64,
    /// Open `CASE`s.
    cases: u64,
    /// It is a subquery.
    select: bool,
    /// It stands in the place of a table. A subquery in it counts [`TABLE_DEPTH`].
    table: bool,
    /// The common table expression whose body it is.
    defines: Option<String>,
    /// A list of tables is open. Each comma in it is a join.
    tables: bool,
    /// It is the list of a `CUBE`.
    cube: bool,
}

impl Level {
    /// The depth that it adds to its contents.
    fn depth(&self) -> u64 {
        let subquery = if self.table { TABLE_DEPTH } else { VALUE_DEPTH };
        self.cases * CASE_DEPTH + if self.select { subquery } else { 0 }
    }
}

/// Weighs a statement, token by token.
#[derive(Default)]
struct Scale {
    /// The open brackets, the innermost last.
    levels: Vec<Level>,
    /// The statement outside all brackets.
    outer: Level,
    /// Weight and depth of each complete common table expression.
    defined: BTreeMap<String, (u64, u64)>,
    /// Columns of all `CUBE`s.
    cube_columns: usize,
}

impl Scale {
    fn take(&mut self, tokens: &[TokenWithSpan], index: usize) -> Result<(), Excess> {
        let weight = match &tokens[index].token {
            Token::LParen | Token::LBracket | Token::LBrace => self.open(tokens, index)?,
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Comma => self.comma()?,
            Token::Word(word) => {
                self.keyword(word.keyword);
                let (used, depth) = self.defined.get(&word.value.to_lowercase()).copied().unwrap_or_default();
                let level = self.level();
                level.below = level.below.max(depth);
                let called = tokens.get(index + 1).is_some_and(|next| next.token == Token::LParen);
                keyword_weight(word.keyword) + used + if called { functions::weight(&word.value) } else { 0 }
            }
            // `a.b` is a name. `a.b.c.d` reads fields of fields.
            Token::Period => u64::from(index >= 2 && tokens[index - 2].token == Token::Period),
            token if is_value(token) => 0,
            _ => 1,
        };
        let level = self.level();
        level.weight = level.weight.saturating_add(weight);
        let open = || self.levels.iter().chain([&self.outer]);
        let depth = open().map(Level::depth).sum::<u64>();
        let below = self.levels.last().unwrap_or(&self.outer).below;
        // The outermost SELECT adds VALUE_DEPTH, too, but it is no subquery.
        if depth + below > SUBQUERY_DEPTH_MAX + VALUE_DEPTH {
            return Err(Excess::Subqueries);
        }
        match open().map(|level| level.weight).sum::<u64>() > WEIGHT_MAX {
            true => Err(Excess::Weight),
            false => Ok(()),
        }
    }

    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().unwrap_or(&mut self.outer)
    }

    fn open(&mut self, tokens: &[TokenWithSpan], index: usize) -> Result<u64, Excess> {
        if self.levels.len() == NESTING_MAX {
            return Err(Excess::Nesting);
        }
        let before = |n: usize| index.checked_sub(n).map(|i| &tokens[i].token);
        let cube = matches!(before(1), Some(Token::Word(word)) if word.keyword == Keyword::CUBE);
        if cube {
            self.cube_columns += 1;
        }
        let subscript = u64::from(tokens[index].token == Token::LBracket);
        let table = match before(1) {
            Some(Token::Word(word)) => is_before_table(word.keyword),
            Some(Token::Comma) => self.level().tables,
            Some(Token::LParen) => self.level().table,
            _ => false,
        };
        self.levels.push(Level { defines: defined_name(tokens, index), cube, table, ..Level::default() });
        Ok(subscript)
    }

    fn close(&mut self) -> u64 {
        // The parser reports a bracket too many.
        let Some(level) = self.levels.pop() else { return 0 };
        let depth = level.below + level.depth();
        let Some(name) = level.defines else {
            let outer = self.level();
            outer.below = outer.below.max(depth);
            return level.weight;
        };
        let known = self.defined.entry(name).or_default();
        *known = (known.0.max(level.weight + 1), known.1.max(depth));
        // A common table expression adds its weight where it is used.
        0
    }

    fn comma(&mut self) -> Result<u64, Excess> {
        let level = self.level();
        let (tables, cube) = (level.tables, level.cube);
        self.cube_columns += usize::from(cube);
        match self.cube_columns > CUBE_COLUMNS_MAX {
            true => Err(Excess::Cube),
            false => Ok(if tables { JOIN_WEIGHT } else { 0 }),
        }
    }

    fn keyword(&mut self, keyword: Keyword) {
        use Keyword as K;
        let level = self.level();
        match keyword {
            K::FROM => level.tables = true,
            K::CASE => level.cases += 1,
            K::END => level.cases = level.cases.saturating_sub(1),
            K::SELECT => {
                level.select = true;
                level.tables = false;
            }
            K::WHERE | K::GROUP | K::HAVING | K::ORDER | K::LIMIT | K::WINDOW | K::QUALIFY => {
                level.tables = false;
            }
            _ => {}
        }
    }
}

/// The name of the common table expression whose body opens at `index`: `name AS (`, `name (a, b) AS (`,
/// `name AS MATERIALIZED (`.
fn defined_name(tokens: &[TokenWithSpan], index: usize) -> Option<String> {
    let mut at = index.checked_sub(1)?;
    let keyword = |at: usize| match &tokens[at].token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    while matches!(keyword(at), Keyword::MATERIALIZED | Keyword::NOT) {
        at = at.checked_sub(1)?;
    }
    if keyword(at) != Keyword::AS {
        return None;
    }
    at = at.checked_sub(1)?;
    if tokens[at].token == Token::RParen {
        // A list of column names holds no brackets.
        at = tokens[..at].iter().rposition(|token| token.token == Token::LParen)?.checked_sub(1)?;
    }
    match &tokens[at].token {
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

/// Whether a bracket after this keyword holds a table.
fn is_before_table(keyword: Keyword) -> bool {
    use Keyword as K;
    let tables =
        [K::FROM, K::JOIN, K::LATERAL, K::AS, K::MATERIALIZED, K::UNION, K::ALL, K::EXCEPT, K::INTERSECT];
    tables.contains(&keyword)
}

/// The weight of a keyword: one if it adds a level to a tree, [`JOIN_WEIGHT`] for a join.
fn keyword_weight(keyword: Keyword) -> u64 {
    use Keyword as K;
    if matches!(keyword, K::JOIN | K::APPLY) {
        return JOIN_WEIGHT;
    }
    let deepens = matches!(
        keyword,
        K::AND
            | K::OR
            | K::NOT
            | K::XOR
            | K::IS
            | K::IN
            | K::LIKE
            | K::ILIKE
            | K::SIMILAR
            | K::RLIKE
            | K::REGEXP
            | K::BETWEEN
            | K::DIV
            | K::OVERLAPS
            | K::COLLATE
            | K::AT
            | K::CASE
            | K::INTERVAL
            | K::SELECT
            | K::VALUES
            | K::UNION
            | K::EXCEPT
            | K::INTERSECT
            | K::MINUS
            | K::LATERAL
            | K::PIVOT
            | K::UNPIVOT
            | K::EXPLAIN
            | K::PRIOR
    );
    u64::from(deepens)
}

/// Whether a token is a leaf of a tree, without a weight.
fn is_value(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(..)
            | Token::Char(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SemiColon
            | Token::Placeholder(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_excess(text: &str, expected: &str) {
        let error = check(text).expect_err(expected);
        assert!(error.message.contains(expected), "{error}");
        assert!(error.place.is_some(), "{error}");
    }

    #[test]
    fn ordinary_statements_pass() {
        for text in [
            "",
            "select 1",
            "select count(*), max(a.b) from t as a, u where a.x = u.x and y in (1, 2, 3) group by cube (a, b)",
            "with a as (select 1), b (x) as materialized (select * from a) select * from b, a; ",
            "select extract(year from ts), substring(x from 2 for 3) from \"a-b\" order by 1",
        ] {
            check(text).unwrap();
        }
        check(&vec!["select case when a then (case when b then 1 end) end"; 30].join(" union all ")).unwrap();
        check(&format!("select * from t where x in ({})", vec!["1"; 10_000].join(","))).unwrap();
        check(&format!("select * from t where {}", vec!["x = 1"; 400].join(" or "))).unwrap();
        check(&format!("select {}", (0..1_500).map(|i| format!("t.c{i}")).collect::<Vec<_>>().join(",")))
            .unwrap();
    }

    #[test]
    fn deep_and_huge_statements_are_refused_with_their_place() {
        check_excess(&format!("select {}", vec!["1"; 5_000].join("+")), "too complex");
        check_excess(&format!("select * from t where {}", vec!["x = 1"; 5_000].join(" or ")), "too complex");
        check_excess(&format!("select {}1", "- ".repeat(5_000)), "too complex");
        check_excess(&format!("select {} true", "not ".repeat(5_000)), "too complex");
        check_excess(&format!("select * from {}", vec!["t"; 5_000].join(",")), "too complex");
        check_excess(&format!("select * from t {}", "join t using (a) ".repeat(5_000)), "too complex");
        check_excess(&vec!["select 1"; 5_000].join(" union all "), "too complex");
        check_excess(&format!("select a{}", ".b".repeat(5_000)), "too complex");
        check_excess(&format!("select a{}", "[1]".repeat(5_000)), "too complex");
        check_excess(&format!("select 1{}", "::int".repeat(5_000)), "too complex");
        check_excess(&format!("select {}1{}", "(".repeat(100), ")".repeat(100)), "nested");
        check_excess(&format!("select {}", "(".repeat(100_000)), "words and signs");
        check_excess(&format!("select {}", vec!["1"; 50_000].join(",")), "words and signs");
        check_excess(&format!("select * from {}t", "(select * from ".repeat(40)), "nested");
        check_excess(&format!("select {}1", "1 = (select ".repeat(20)), "nested");
        check_excess(&format!("select {}1", "case when (".repeat(20)), "nested");
        check_excess(&"select 1, case when a then ".repeat(20), "nested");
        for (call, most) in [("\"Repeat\" ('x', 2)", 15), ("list_resize(a, 9)", 15), ("concat(a, b)", 31)] {
            check(&format!("select {}", vec![call; most].join(","))).unwrap();
            check_excess(&format!("select {}", vec![call; most + 1].join(",")), "too complex");
        }
        check(&format!("select {}", vec!["repeat"; 100].join(","))).unwrap();
        check_excess("select 1 group by cube (a,b,c,d,e,f), cube (g,h,i,j,k,l)", "CUBE");
        assert!(check(&"x".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().message.contains("bytes"));
        assert_eq!(check("select 'a\n from t").unwrap_err().place.unwrap().line, 1);
    }

    #[test]
    fn past_moments_are_found() {
        for (text, column) in [
            ("select * from t for system_time as of '2026-01-01'", Some(17)),
            ("select * from t FOR SYSTEM_TIME between a and b", Some(17)),
            ("select * from t version as of 5", Some(17)),
            ("select * from t for version as of 5", Some(21)),
            ("select * from t for update", None),
            ("select version as o from t", None),
            ("select 'version as of' from t", None),
        ] {
            assert_eq!(past_moment(text).map(|place| place.column), column, "{text}");
        }
    }

    #[test]
    fn doubling_is_counted_before_it_happens() {
        let steps: Vec<String> =
            (1..40).map(|i| format!("c{i} as (select * from C{}, c{})", i - 1, i - 1)).collect();
        check_excess(&format!("with c0 as (select 1), {} select * from c39", steps.join(",")), "too complex");
        // Fourteen steps without doubling are fine.
        let steps: Vec<String> = (1..14).map(|i| format!("c{i} as (select * from c{})", i - 1)).collect();
        check(&format!("with c0 as (select 1), {} select * from c13", steps.join(","))).unwrap();
    }
}
