// What Kusto's own language service has against queries: {tables, queries} as JSON on stdin, {name: [complaints]} on stdout.
require("@kusto/language-service-next/bridge.min.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.min.js");
const { Language } = globalThis.Kusto;
const { TableSymbol, DatabaseSymbol } = Language.Symbols;

const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const tables = Object.entries(given.tables).map(([name, columns]) => TableSymbol.From(`(${columns})`).WithName(name));
const globals = Language.GlobalState.Default.WithDatabase(new DatabaseSymbol.ctor("logs", tables));

function complaints(query) {
  const found = Language.KustoCode.ParseAndAnalyze(query, globals).GetDiagnostics();
  return Array.from({ length: found.Count }, (_, i) => found.getItem(i).Message);
}

const told = Object.entries(given.queries).map(([name, query]) => [name, complaints(query)]);
console.log(JSON.stringify(Object.fromEntries(told)));
