//! Changes of the expressions of one source file.

use std::collections::BTreeSet;
use std::fmt;

use proc_macro2::Span;
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, BinOp, Block, Expr, ReturnType, Signature, Type, UnOp, parse_quote};

/// One change, and where it is made.
pub(crate) struct Change {
    pub(crate) number: u32,
    pub(crate) file: String,
    line: usize,
    column: usize,
    what: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.what)
    }
}

/// Returns the source with all changes of its expressions, except for those with an `invalid` number, and adds them to
/// `changes`.
pub(crate) fn apply(
    file: &str,
    source: &str,
    invalid: &BTreeSet<u32>,
    changes: &mut Vec<Change>,
) -> Result<String, String> {
    let mut tree = syn::parse_file(source).map_err(|error| format!("{file}: {error}"))?;
    Changer { file, invalid, changes }.visit_file_mut(&mut tree);
    Ok(prettyplease::unparse(&tree))
}

struct Changer<'a> {
    file: &'a str,
    invalid: &'a BTreeSet<u32>,
    changes: &'a mut Vec<Change>,
}

impl Changer<'_> {
    /// Records a change. `None` if it does not compile.
    fn number(&mut self, span: Span, what: String) -> Option<u32> {
        let number = u32::try_from(self.changes.len()).ok()?;
        let (file, at) = (self.file.to_owned(), span.start());
        self.changes.push(Change { number, file, line: at.line, column: at.column + 1, what });
        (!self.invalid.contains(&number)).then_some(number)
    }

    /// Lets the body of a function return early, with each value that is easily made.
    fn body(&mut self, signature: &Signature, block: &mut Block) {
        if signature.constness.is_some() {
            return;
        }
        visit_mut::visit_block_mut(self, block);
        for value in early_values(&signature.output) {
            let what = format!("{} returns {}", signature.ident, text(&value));
            if let Some(number) = self.number(signature.ident.span(), what) {
                block
                    .stmts
                    .insert(0, parse_quote! { if crate::mutant::is(#number) { return #value; } });
            }
        }
    }

    /// Replaces an expression by one of the two, depending on the change that is chosen.
    fn replace(&mut self, node: &mut Expr, other: Expr, what: String) {
        if let Some(number) = self.number(node.span(), what) {
            let own = node.clone();
            *node = parse_quote! { (if crate::mutant::is(#number) { #other } else { #own }) };
        }
    }
}

impl VisitMut for Changer<'_> {
    fn visit_expr_mut(&mut self, node: &mut Expr) {
        visit_mut::visit_expr_mut(self, node);
        match node {
            Expr::Binary(binary) => {
                let (Some(operator), false) = (opposite(&binary.op), has_let(node)) else { return };
                let Expr::Binary(binary) = node else { return };
                let what = format!("{} instead of {}", text(&operator), text(&binary.op));
                let mut other = binary.clone();
                other.op = operator;
                self.replace(node, Expr::Binary(other), what);
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let inner = (*unary.expr).clone();
                self.replace(node, inner, "without !".to_owned());
            }
            _ => {}
        }
    }

    fn visit_item_mut(&mut self, node: &mut syn::Item) {
        let attributes: &[Attribute] = match node {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            // Constants are computed by the compiler.
            syn::Item::Const(_) | syn::Item::Static(_) => return,
            _ => &[],
        };
        if !is_of_tests(attributes) {
            visit_mut::visit_item_mut(self, node);
        }
    }

    fn visit_item_fn_mut(&mut self, node: &mut syn::ItemFn) {
        self.body(&node.sig, &mut node.block);
    }

    fn visit_impl_item_fn_mut(&mut self, node: &mut syn::ImplItemFn) {
        if !is_of_tests(&node.attrs) {
            self.body(&node.sig, &mut node.block);
        }
    }

    fn visit_trait_item_fn_mut(&mut self, node: &mut syn::TraitItemFn) {
        if let Some(block) = &mut node.default {
            self.body(&node.sig, block);
        }
    }

    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}

    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}

    fn visit_expr_const_mut(&mut self, _: &mut syn::ExprConst) {}

    fn visit_expr_repeat_mut(&mut self, node: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut node.expr);
    }
}

/// Returns the operator that replaces `operator`.
fn opposite(operator: &BinOp) -> Option<BinOp> {
    Some(match operator {
        BinOp::Eq(_) => parse_quote!(!=),
        BinOp::Ne(_) => parse_quote!(==),
        BinOp::Lt(_) => parse_quote!(<=),
        BinOp::Le(_) => parse_quote!(<),
        BinOp::Gt(_) => parse_quote!(>=),
        BinOp::Ge(_) => parse_quote!(>),
        BinOp::And(_) => parse_quote!(||),
        BinOp::Or(_) => parse_quote!(&&),
        BinOp::Add(_) => parse_quote!(-),
        BinOp::Sub(_) => parse_quote!(+),
        BinOp::Mul(_) => parse_quote!(+),
        _ => return None,
    })
}

/// Returns values that a function of this type can return at once.
fn early_values(output: &ReturnType) -> Vec<Expr> {
    let ReturnType::Type(_, output) = output else { return vec![parse_quote!(())] };
    let Type::Path(path) = &**output else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    match last.ident.to_string().as_str() {
        "bool" => vec![parse_quote!(true), parse_quote!(false)],
        "Option" => vec![parse_quote!(None)],
        "Vec" | "String" | "usize" | "u64" | "u32" => vec![parse_quote!(Default::default())],
        _ => Vec::new(),
    }
}

/// Checks whether the operands declare variables: `if let ... && ...`.
fn has_let(node: &Expr) -> bool {
    match node {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = text(&attribute.meta);
        text == "test" || text.starts_with("cfg (test")
    })
}

fn text(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string()
}
