// Logs, Application Insights without keys, and the workbook.

@description('The first part of the names.')
param name string

@description('Where they live.')
param location string

@description('Tags of every resource.')
param tags object

@description('Days for which logs are kept.')
@minValue(30)
@maxValue(730)
param retentionDays int

@description('Logs of a day beyond this many GB are dropped; -1 for no limit.')
@minValue(-1)
param dailyGb int

@description('The id of the router\'s identity.')
param identityId string

@description('The object id of the router\'s identity, which sends telemetry.')
param principalId string

var metricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' = {
  name: '${name}-logs'
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: retentionDays
    features: { disableLocalAuth: true }
    workspaceCapping: { dailyQuotaGb: dailyGb }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: '${name}-insights'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    DisableLocalAuth: true
  }
}

resource routerSends 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, identityId, metricsPublisher)
  scope: insights
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', metricsPublisher)
    principalId: principalId
    principalType: 'ServicePrincipal'
  }
}

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(insights.id, 'router')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'LLM router (${name})'
    category: 'workbook'
    sourceId: insights.id
    version: '1.0'
    serializedData: loadTextContent('../workbooks/router.json')
  }
}

@description('The id of Application Insights.')
output insightsId string = insights.id

@description('Where telemetry is sent. It locates and lets nobody in: local authentication is off.')
output connection string = insights.properties.ConnectionString

@description('The id of the workspace of logs.')
output workspaceId string = workspace.id
