//! Clauses that the parser reads and the engine's planner passes over, as if they were not there. Those that SQL can
//! say otherwise are said otherwise; the others are refused.

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, GroupByWithModifier, LimitClause, Query, Select, SelectFlavor, SelectItem, SetExpr,
    TableFactor, Value, WildcardAdditionalOptions,
};

/// What to do about a clause that is refused.
type Refused = Result<(), String>;

/// The error of a statement that asks for a table as it was.
pub const NO_PAST: &str = "a table as it was (FOR SYSTEM_TIME AS OF, VERSION AS OF) is not possible: SQL sees the \
                           newest rows; use an Iceberg reader, which has the snapshots";

fn refuse(clause: &str, instead: &str) -> Refused {
    Err(format!("{clause} is not possible; {instead}"))
}

/// Rewrites or refuses the clauses of a query.
pub(super) fn query(query: &mut Query) -> Refused {
    if query.settings.is_some() || query.format_clause.is_some() || query.for_clause.is_some() {
        return refuse("SETTINGS, FORMAT or FOR at the end of a query", "leave it out");
    }
    if !query.locks.is_empty() {
        return refuse("FOR UPDATE or FOR SHARE", "leave it out: a query sees one moment and locks nothing");
    }
    fetch(query)?;
    body(&mut query.body)
}

fn body(set: &mut SetExpr) -> Refused {
    match set {
        SetExpr::Select(found) => select(found),
        SetExpr::SetOperation { left, right, .. } => body(left).and_then(|()| body(right)),
        _ => Ok(()),
    }
}

/// `FETCH FIRST n ROWS ONLY` (SQL:2016, 7.17) is `LIMIT n`.
fn fetch(query: &mut Query) -> Refused {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.with_ties || fetch.percent {
        return refuse("FETCH WITH TIES or PERCENT", "filter by rank() or percent_rank()");
    }
    let one = || Expr::value(Value::Number("1".to_owned(), false));
    let rows = Some(fetch.quantity.unwrap_or_else(one));
    match &mut query.limit_clause {
        None => {
            let clause = LimitClause::LimitOffset { limit: rows, offset: None, limit_by: Vec::new() };
            query.limit_clause = Some(clause);
            Ok(())
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => {
            *limit = rows;
            Ok(())
        }
        Some(_) => refuse("FETCH beside LIMIT", "leave one of them out"),
    }
}

fn select(select: &mut Select) -> Refused {
    if select.prewhere.is_some() {
        return refuse("PREWHERE", "use WHERE");
    }
    if !select.connect_by.is_empty() {
        return refuse("CONNECT BY", "use WITH RECURSIVE");
    }
    let options = |item: &SelectItem| match item {
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
            options.opt_ilike.is_some()
        }
        _ => false,
    };
    if select.projection.iter().any(options) {
        return refuse("ILIKE after *", "name the columns");
    }
    if select.flavor == SelectFlavor::FromFirstNoSelect && select.projection.is_empty() {
        select.projection.push(SelectItem::Wildcard(WildcardAdditionalOptions::default()));
    }
    group_by(&mut select.group_by)
}

/// `GROUP BY a, b WITH ROLLUP` is `GROUP BY ROLLUP (a, b)`.
fn group_by(clause: &mut GroupByExpr) -> Refused {
    let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = clause;
    let Some(modifier) = modifiers.pop() else { return Ok(()) };
    let GroupByExpr::Expressions(keys, rest) = clause else {
        return refuse("GROUP BY ALL with WITH", "name the keys");
    };
    if !rest.is_empty() {
        return refuse("GROUP BY with two of WITH", "use GROUPING SETS");
    }
    let each = |keys: &mut Vec<Expr>| -> Vec<Vec<Expr>> {
        std::mem::take(keys).into_iter().map(|key| vec![key]).collect()
    };
    let sets = match modifier {
        GroupByWithModifier::Rollup => Expr::Rollup(each(keys)),
        GroupByWithModifier::Cube => Expr::Cube(each(keys)),
        GroupByWithModifier::GroupingSets(sets) => sets,
        GroupByWithModifier::Totals => return refuse("GROUP BY ... WITH TOTALS", "use ROLLUP"),
    };
    *keys = vec![sets];
    Ok(())
}

/// Refuses what the engine passes over behind a table.
pub(super) fn table(factor: &TableFactor) -> Refused {
    let (sample, moment, other) = match factor {
        TableFactor::Table { sample, version, partitions, json_path, .. } => {
            (sample.is_some(), version.is_some(), !partitions.is_empty() || json_path.is_some())
        }
        TableFactor::Derived { sample, .. } => (sample.is_some(), false, false),
        _ => return Ok(()),
    };
    if sample {
        return refuse("TABLESAMPLE", "filter by random() < 0.1");
    }
    if moment {
        return Err(NO_PAST.to_owned());
    }
    match other {
        true => refuse("PARTITION or a path behind a table", "use WHERE"),
        false => Ok(()),
    }
}
