// Alert rules over what the router tells of itself. docs/operations.md says what to do about each.

@description('The first part of the names.')
param name string

@description('Where the rules live.')
param location string

@description('Tags of every resource.')
param tags object

@description('The id of Application Insights.')
param insightsId string

@description('The id of the workspace of logs.')
param workspaceId string

@description('Who gets an e-mail; empty for nobody.')
param emails string[]

@description('The slowest twentieth of the requests may take this many seconds.')
@minValue(1)
param seconds int

@description('This many percent of the requests may fail.')
@minValue(1)
param errorPercent int

@description('A day\'s model calls may cost this many US dollars; 0 for no alert.')
@minValue(0)
param budgetUsdPerDay int

var rules = [
  {
    key: 'breaker-opened'
    title: 'A breaker opened'
    text: 'A target failed so often that no instance asks it for now.'
    severity: 2
    inLogs: false
    query: loadTextContent('../queries/breaker-opened.kql')
    window: 'PT5M'
    every: 'PT5M'
    dimension: 'target'
    enabled: true
  }
  {
    key: 'route-unavailable'
    title: 'A route has no target left'
    text: 'Requests were refused because every target of their route is open or parked.'
    severity: 1
    inLogs: false
    query: loadTextContent('../queries/route-unavailable.kql')
    window: 'PT5M'
    every: 'PT5M'
    dimension: 'route'
    enabled: true
  }
  {
    key: 'slow'
    title: 'Requests are slow'
    text: 'The slowest twentieth of the requests of a route takes too long.'
    severity: 3
    inLogs: false
    query: replace(loadTextContent('../queries/slow.kql'), '{seconds}', string(seconds))
    window: 'PT15M'
    every: 'PT5M'
    dimension: 'route'
    enabled: true
  }
  {
    key: 'errors'
    title: 'Requests fail'
    text: 'Too many requests end with an error of the router or of its providers.'
    severity: 1
    inLogs: false
    query: replace(loadTextContent('../queries/errors.kql'), '{percent}', string(errorPercent))
    window: 'PT15M'
    every: 'PT5M'
    dimension: 'route'
    enabled: true
  }
  {
    key: 'budget'
    title: 'The day\'s budget is at 80 %'
    text: 'What model calls have cost since midnight UTC is above 80 % of the budget.'
    severity: 2
    inLogs: false
    query: replace(loadTextContent('../queries/budget.kql'), '{usd}', string(budgetUsdPerDay))
    window: 'P1D'
    every: 'PT15M'
    dimension: ''
    enabled: budgetUsdPerDay > 0
  }
  {
    key: 'vault'
    title: 'The vault refuses the router'
    text: 'Secrets could not be read from the vault.'
    severity: 1
    inLogs: true
    query: loadTextContent('../queries/vault.kql')
    window: 'PT15M'
    every: 'PT5M'
    dimension: 'reason'
    enabled: true
  }
  {
    key: 'store-degraded'
    title: 'Instances cannot reach the tables'
    text: 'Breakers work on from what each instance knows; limits and budgets are per instance meanwhile.'
    severity: 2
    inLogs: false
    query: loadTextContent('../queries/store-degraded.kql')
    window: 'PT15M'
    every: 'PT5M'
    dimension: ''
    enabled: true
  }
]

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(emails)) {
  name: '${name}-people'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'llm-router'
    emailReceivers: [
      for (email, i) in emails: {
        name: 'person${i}'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alertRules 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for rule in filter(rules, each => each.enabled): {
    name: '${name}-${rule.key}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: rule.title
      description: '${rule.text} What to do: docs/operations.md#${rule.key}'
      severity: rule.severity
      enabled: true
      scopes: [rule.inLogs ? workspaceId : insightsId]
      windowSize: rule.window
      evaluationFrequency: rule.every
      autoMitigate: true
      skipQueryValidation: true // tables are created by their first row, which a new deployment has not sent yet
      criteria: {
        allOf: [
          {
            query: rule.query
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            threshold: 0
            dimensions: empty(rule.dimension) ? [] : [{ name: rule.dimension, operator: 'Include', values: ['*'] }]
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: { actionGroups: empty(emails) ? [] : [people.id] }
    }
  }
]
