//! Right answers where the engine's are wrong: rules and functions of our own, each with the reason for it.
//!
//! # When each acts
//! ```text
//! syntax.rs        on the parsed statement: USING, names of recursive tables
//! clauses.rs       on the parsed statement: clauses that the engine passes over
//! apart.rs         on the parsed statement: columns that would have one name
//! zones.rs         on the parsed statement: AT TIME ZONE in microseconds
//! views.rs         on the parsed statement: texts without views
//! windows.rs       on the parsed statement: windows that build on others
//! using.rs         while the engine plans: merged columns of USING and NATURAL
//! times.rs         types and functions of time in microseconds
//! fields.rs        while the engine plans: fields of intervals
//! comparisons.rs   before types are chosen: constants beside whole numbers, texts and dates beside timestamps
//! intervals.rs     lengths of intervals, dates plus intervals
//! patterns.rs      SIMILAR TO, LIKE ... ESCAPE
//! unnest.rs        what a column of an unnest is not: unique
//! order.rs         ORDER BY that says a thing twice or in vain
//! set_all.rs       EXCEPT ALL, INTERSECT ALL
//! subqueries.rs    IN, NOT IN, EXISTS, ANY, ALL with all three answers
//! correlated.rs    correlated subqueries that the engine cannot join
//! zero.rs          -0.0 equals 0.0
//! checked.rs       arithmetic of whole numbers that does not wrap around
//! in_lists.rs      while the engine simplifies: lists with NULL
//! sparing.rs       which of the engine's rules run
//! grouping.rs      while the engine plans its operators: grouping sets
//! sum.rs, moving.rs, shift.rs, series.rs, single.rs, opaque.rs    functions
//! ```
//!
//! docs/sql.md says what a user sees of it. A statement without any of this passes unchanged.

mod apart;
mod checked;
mod clauses;
mod comparisons;
mod correlated;
mod fields;
mod grouping;
mod in_lists;
mod intervals;
mod moving;
mod names;
mod opaque;
mod order;
mod patterns;
mod pushdown;
mod series;
mod set_all;
mod shift;
mod single;
mod sparing;
mod subqueries;
mod sum;
mod syntax;
mod times;
mod unnest;
mod using;
pub(crate) mod views;
pub(crate) mod walk;
mod windows;
mod zero;
mod zones;

pub use clauses::NO_PAST;
pub use zones::no_zone;

use std::sync::Arc;

use datafusion::catalog::TableFunction;
use datafusion::common::{DataFusionError, Result, SchemaError};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{AggregateUDF, LogicalPlan};
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;

use in_lists::SimplifyApart;
use shift::Shift;
use single::{Fault, Mended};
use sum::CheckedSum;

/// Switches off what cannot be mended from outside.
pub fn configure(session: &mut SessionConfig) {
    let options = session.options_mut();
    // It loses the groups whose key or value is NULL.
    options.optimizer.enable_topk_aggregation = false;
}

/// Puts the rules into a session.
pub fn rules(mut state: SessionStateBuilder) -> SessionStateBuilder {
    // The first planner that knows an expression plans it.
    let planners = state.expr_planners().get_or_insert_default();
    planners.insert(0, Arc::new(fields::Extract));
    planners.insert(0, Arc::new(using::MergedTexts));
    state
        .with_analyzer_rules(analyzer())
        .with_optimizer_rules(optimizer())
        .with_physical_optimizer_rules(physical_optimizer())
        .with_relation_planners(vec![Arc::new(using::MergedColumns)])
        .with_type_planner(Arc::new(times::MicrosecondTypes))
}

/// The engine's rules, which choose types, between ours.
fn analyzer() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        Arc::new(using::Unmark),
        Arc::new(patterns::StandardPatterns),
        Arc::new(comparisons::ExactComparisons),
        Arc::new(intervals::Lengths),
    ];
    rules.extend(Analyzer::new().rules);
    rules.extend([
        Arc::new(unnest::ForgetBelowUnnest) as Arc<dyn AnalyzerRule + Send + Sync>,
        Arc::new(order::PlainOrders),
        Arc::new(set_all::CountedSets),
        Arc::new(subqueries::MaybeNoRow),
        Arc::new(subqueries::ThreeAnswers),
        Arc::new(correlated::Unnested),
        Arc::new(zero::OneZero),
        Arc::new(checked::CheckedArithmetic),
    ]);
    rules
}

fn optimizer() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    safe_rules().map(sparing::sparing).collect()
}

/// The engine's rules, with answers that are right.
fn safe_rules() -> impl Iterator<Item = Arc<dyn OptimizerRule + Send + Sync>> {
    let apart = SimplifyApart::default();
    let ours = move |rule: Arc<dyn OptimizerRule + Send + Sync>| match rule.name() == apart.name() {
        true => Arc::new(SimplifyApart::default()),
        false => rule,
    };
    Optimizer::new().rules.into_iter().map(ours)
}

fn physical_optimizer() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    safe_physical_rules().map(sparing::sparing_physical).collect()
}

/// The engine's rules for operators, with answers that are right.
fn safe_physical_rules() -> impl Iterator<Item = Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let sets: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(grouping::ForgetBelowSets);
    std::iter::once(sets).chain(PhysicalOptimizer::new().rules.into_iter().map(pushdown::careful))
}

/// Replaces functions of the engine.
///
/// # Errors
/// The engine lacks one of the functions.
pub fn functions(state: &mut SessionState) -> Result<()> {
    for (name, fault) in [
        ("log", Fault::Simplified),
        ("power", Fault::Simplified),
        ("replace", Fault::EmptyPattern),
        ("regexp_count", Fault::ForgetsNull),
        ("round", Fault::FarPlaces),
        ("trunc", Fault::FarPlaces),
        ("date_bin", Fault::FarTimes),
        ("md5", Fault::MakesViews),
    ] {
        let mended = Mended::over(state.udf(name)?, fault);
        state.register_udf(Arc::new(mended))?;
    }
    let now = times::Now::over(state.udf("now")?);
    state.register_udf(Arc::new(now))?;
    let date_trunc = times::DateTrunc::over(state.udf("date_trunc")?);
    state.register_udf(Arc::new(date_trunc))?;
    let date_part = fields::DatePart::over(state.udf("date_part")?);
    state.register_udf(Arc::new(date_part))?;
    let to_char = times::ToChar::over(state.udf("to_char")?);
    state.register_udf(Arc::new(to_char))?;
    let to_date = times::ToDate::over(state.udf("to_date")?);
    state.register_udf(Arc::new(to_date))?;
    let to_timestamp =
        times::ToTimestamp::over(state.udf("to_timestamp")?, state.udf("to_timestamp_micros")?);
    state.register_udf(Arc::new(to_timestamp))?;
    state.register_udaf(Arc::new(AggregateUDF::new_from_impl(CheckedSum::default())))?;
    // They tell of the file of a row. The newest rows of a table are in none.
    for name in ["input_file_name", "file_row_index"] {
        state.deregister_udf(name)?;
    }
    for name in moving::NAMES {
        let halved = moving::Halved::over(state.udaf(name)?);
        state.register_udaf(Arc::new(halved))?;
    }
    let (lead, lag) = (Shift::lead(state.udwf("lead")?), Shift::lag(state.udwf("lag")?));
    state.register_udwf(Arc::new(lead))?;
    state.register_udwf(Arc::new(lag))?;
    Ok(())
}

/// The table functions in place of the engine's.
pub fn table_functions() -> Vec<Arc<TableFunction>> {
    let series = |name: &'static str, inclusive| {
        Arc::new(TableFunction::new(name.to_owned(), Arc::new(series::Series { name, inclusive })))
    };
    vec![series("generate_series", true), series("range", false)]
}

/// Rewrites a parsed statement.
///
/// # Errors
/// The statement has a clause that the engine would pass over; the message says what to do.
pub fn adapt(statement: &mut Statement) -> std::result::Result<(), String> {
    syntax::adapt(statement)
}

/// Plans a statement. The engine's planner calls a merged name ambiguous in WHERE, where only it knows what a NATURAL
/// join merges, and below NOT and signs. So the statement is planned again with each of them under the qualifier of
/// merged columns.
///
/// # Errors
/// Those of the planner.
pub async fn plan(state: &SessionState, mut statement: Statement) -> Result<LogicalPlan> {
    let first = match state.statement_to_plan(statement.clone()).await {
        Ok(plan) => return Ok(plan),
        Err(error) => error,
    };
    let mut name = ambiguous(&first);
    // Each round changes at least one of the statement's names.
    while let Some(merged) = name.take()
        && syntax::qualify_merged(&mut statement, &merged)
    {
        match state.statement_to_plan(statement.clone()).await {
            Ok(plan) => return Ok(plan),
            Err(error) => name = ambiguous(&error),
        }
    }
    Err(first)
}

/// The name without a qualifier that an error calls ambiguous.
fn ambiguous(error: &DataFusionError) -> Option<String> {
    match error.find_root() {
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::AmbiguousReference { field } if field.relation.is_none() => Some(field.name.clone()),
            _ => None,
        },
        DataFusionError::Diagnostic(_, inner) => ambiguous(inner),
        _ => None,
    }
}
