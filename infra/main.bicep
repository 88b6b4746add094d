// One LLM router in one resource group: az deployment group create -g GROUP -f infra/main.bicep -p infra/main.parameters.json
targetScope = 'resourceGroup'

metadata name = 'LLM router'
metadata description = 'A function app that routes requests to language models, with what it needs and no stored secret.'

@description('A model that every Azure OpenAI account of this deployment serves.')
type modelDeployment = {
  @description('What the routes file calls `model`. Named for its model, its price is known before the call.')
  @minLength(2)
  @maxLength(64)
  name: string
  @description('The model, as Azure names it.')
  model: string
  @description('The version of the model.')
  version: string
  @description('Where requests are processed: anywhere, in one data zone, or in the account\'s region.')
  sku: 'GlobalStandard' | 'DataZoneStandard' | 'Standard'
  @description('Thousands of tokens per minute.')
  @minValue(1)
  capacity: int
}

@description('The first part of every name: letters of a to z, digits and hyphens, a letter first.')
@minLength(3)
@maxLength(20)
param name string = 'llm-router'

@description('Where everything lives but the Azure OpenAI accounts.')
@minLength(2)
@maxLength(64)
param location string = resourceGroup().location

@description('Tags of every resource.')
param tags object = {}

// The app

@description('Memory of one instance in MB. 512, 2048 and 4096 come with a quarter, one and two cores.')
@allowed([512, 2048, 4096])
param instanceMemory int = 2048

@description('Requests that one instance serves at the same time, before another instance is started. They wait for providers most of the time.')
@minValue(1)
@maxValue(1000)
param concurrency int = 100

@description('The most instances there may be.')
@minValue(1)
@maxValue(1000)
param maximumInstances int = 40

@description('Instances that are kept running. 0: none, nothing is paid for at rest, and the first request after a pause waits for a start.')
@minValue(0)
@maxValue(100)
param alwaysReady int = 0

@description('Spread the instances and the storage over availability zones. Only in regions that have them.')
param zoneRedundant bool = false

@description('The routes file, by its path in the package.')
@minLength(6)
@maxLength(200)
param routesFile string = empty(openAiSecondLocation) ? 'routes.azure.toml' : 'routes.azure-regions.toml'

@description('App settings that hold a secret of the vault, by the name of the secret: { "OPENAI_API_KEY": "openai-api-key" }. For routes files that say env:OPENAI_API_KEY. Set the secret first: a reference that leads nowhere makes the router refuse its routes file.')
param secretSettings object = {}

@description('More app settings, such as addresses that the routes file names with env:. No secrets here.')
param extraSettings object = {}

@description('Pages of other hosts that may call the router from a browser: ["https://app.example.com"].')
@maxLength(100)
param allowedOrigins string[] = []

@description('Where telemetry goes. `opencensus` and `azuremonitor` send the same to Application Insights, by different packages; `otlp` sends it to the collector that OTEL_EXPORTER_OTLP_ENDPOINT of extraSettings names.')
@allowed(['opencensus', 'azuremonitor', 'otlp', 'none'])
param telemetry string = 'opencensus'

// Secrets

@description('Object id of the person or application that may write secrets into the vault: az ad signed-in-user show --query id -o tsv. Empty: nobody gets the right here.')
@maxLength(36)
param secretsOfficer string = ''

@description('Days for which a deleted vault and its secrets can be brought back. Cannot be changed later.')
@minValue(7)
@maxValue(90)
param vaultRetentionDays int = 7

@description('Bring back the vault of a deployment that was deleted within its retention, in the same group and with the same name.')
param recoverVault bool = false

// Models in Azure

@description('Region of an Azure OpenAI account for the router, like eastus2. Empty: none is created.')
@maxLength(64)
param openAiLocation string = ''

@description('Region of a second account with the same models. Empty: none.')
@maxLength(64)
param openAiSecondLocation string = ''

@description('The models of each account.')
@maxLength(32)
param openAiDeployments modelDeployment[] = [
  { name: 'gpt-5-mini', model: 'gpt-5-mini', version: '2025-08-07', sku: 'GlobalStandard', capacity: 50 }
  { name: 'gpt-5-nano', model: 'gpt-5-nano', version: '2025-08-07', sku: 'GlobalStandard', capacity: 50 }
]

// Network

@description('Put storage, vault and Azure OpenAI behind private endpoints in a network of their own.')
param privateNetwork bool = false

@description('Whether the router itself can be reached from the internet. If not, only from the private network.')
param publicEndpoint bool = true

@description('Public IPv4 addresses, or ranges up to /30, that may reach storage and vault from outside the private network, to set secrets and publish.')
@maxLength(200)
param operatorAddresses string[] = []

@description('Addresses of the private network, at least a /22.')
@minLength(9)
@maxLength(18)
param networkPrefix string = '10.20.0.0/22'

// SignalR

@description('Create an Azure SignalR Service in serverless mode, through which the router tells pages what happens to its targets.')
param signalR bool = false

@description('Pages that may connect to it: ["https://app.example.com"].')
@maxLength(100)
param signalROrigins string[] = []

// Watching it

@description('Days for which logs are kept. The first 30 are part of the price of taking them in.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('Logs of a day beyond this many GB are dropped. -1: no limit.')
@minValue(-1)
@maxValue(1000)
param logDailyGb int = 5

@description('Create the alert rules.')
param alerts bool = true

@description('Who gets an e-mail when an alert fires. Empty: alerts only show in the portal.')
@maxLength(100)
param alertEmails string[] = []

@description('Alert when the slowest twentieth of the requests takes longer than this many seconds.')
@minValue(1)
@maxValue(220)
param alertSeconds int = 60

@description('Alert when more than this many percent of the requests fail.')
@minValue(1)
@maxValue(100)
param alertErrorPercent int = 5

@description('Alert when a day\'s model calls have cost 80 % of this many US dollars. 0: no such alert. It refuses nobody; budgets of callers do, in the routes file.')
@minValue(0)
@maxValue(1000000)
param budgetUsdPerDay int = 0

var ownSettings = [
  'AzureWebJobsStorage__accountName'
  'AzureWebJobsStorage__credential'
  'AzureWebJobsStorage__clientId'
  'AzureWebJobsStorage'
  'AzureWebJobsDisableHomepage'
  'AZURE_CLIENT_ID'
  'ROUTER_CONFIG'
  'ROUTER_TABLES'
  'ROUTER_KEY_VAULT'
  'ROUTER_TELEMETRY'
  'ROUTER_SIGNALR'
  'APPLICATIONINSIGHTS_CONNECTION_STRING'
  'APPLICATIONINSIGHTS_AUTHENTICATION_STRING'
  'AZURE_OPENAI_ENDPOINT'
  'AZURE_OPENAI_SECOND_ENDPOINT'
]
var refusedByPlan = [
  'FUNCTIONS_WORKER_RUNTIME'
  'FUNCTIONS_EXTENSION_VERSION'
  'WEBSITE_RUN_FROM_PACKAGE'
  'SCM_DO_BUILD_DURING_DEPLOYMENT'
  'ENABLE_ORYX_BUILD'
  'WEBSITE_CONTENTAZUREFILECONNECTIONSTRING'
  'WEBSITE_CONTENTSHARE'
  'WEBSITE_TIME_ZONE'
]
var letters = 'abcdefghijklmnopqrstuvwxyz'
var nameCharacters = map(range(0, length(name)), i => toLower(substring(name, i, 1)))
var wrongCharacters = filter(nameCharacters, each => !contains('${letters}0123456789-', each))
var tooSmall = filter(operatorAddresses, each => endsWith(each, '/31') || endsWith(each, '/32'))
var networkSize = contains(networkPrefix, '/') ? int(last(split(networkPrefix, '/'))) : 32
var openAiRegion = toLower(replace(openAiLocation, ' ', ''))
var openAiSecondRegion = toLower(replace(openAiSecondLocation, ' ', ''))
var deployed = map(openAiDeployments, each => each.name)
var ownRoutes = contains(['routes.azure.toml', 'routes.azure-regions.toml'], routesFile)
var notDeployed = filter(['gpt-5-mini', 'gpt-5-nano'], model => !contains(deployed, model))
var cloud = environment().name
var givenSettings = concat(objectKeys(secretSettings), objectKeys(extraSettings))
var twice = intersection(objectKeys(secretSettings), objectKeys(extraSettings))
var taken = intersection(givenSettings, ownSettings)
var unwanted = intersection(givenSettings, refusedByPlan)

// Combinations that cannot work. All of them are told at once, before anything is created.
var refusals = concat(
  empty(wrongCharacters) ? [] : ['name has ${join(wrongCharacters, ' ')} in it: use letters of a to z, digits and hyphens only.'],
  contains(letters, first(nameCharacters)) ? [] : ['name does not begin with a letter: let it begin with one.'],
  !empty(openAiSecondLocation) && empty(openAiLocation) ? ['openAiSecondLocation needs a first region: set openAiLocation too.'] : [],
  !empty(openAiLocation) && openAiRegion == openAiSecondRegion ? ['openAiSecondLocation is the first region again: choose another, or leave it empty.'] : [],
  !empty(openAiLocation) && empty(openAiDeployments) ? ['openAiLocation is set but no model: name at least one in openAiDeployments, or leave openAiLocation empty.'] : [],
  length(union(deployed, [])) < length(deployed) ? ['openAiDeployments has two of one name: give each its own.'] : [],
  !empty(openAiLocation) && !empty(deployed) && ownRoutes && !empty(notDeployed) ? ['${routesFile} asks ${join(notDeployed, ', ')}: add it to openAiDeployments, or set routesFile to a file of your own.'] : [],
  !empty(openAiLocation) && cloud != 'AzureCloud' ? ['openAiLocation works in Azure\'s public cloud only, whose tokens the router asks for: leave it empty.'] : [],
  empty(openAiLocation) && routesFile == 'routes.azure.toml' ? ['routes.azure.toml needs an Azure OpenAI account: set openAiLocation, or set routesFile to a file of your own.'] : [],
  empty(openAiSecondLocation) && routesFile == 'routes.azure-regions.toml' ? ['routes.azure-regions.toml needs two accounts: set openAiSecondLocation, or leave routesFile out.'] : [],
  alwaysReady > maximumInstances ? ['alwaysReady is above maximumInstances: lower the one or raise the other.'] : [],
  zoneRedundant && alwaysReady == 1 ? ['zoneRedundant needs two instances: set alwaysReady to 0 or to at least 2.'] : [],
  !publicEndpoint && !privateNetwork ? ['publicEndpoint = false leaves no way to the router: set privateNetwork to true.'] : [],
  !empty(operatorAddresses) && !privateNetwork ? ['operatorAddresses are exceptions to a private network: set privateNetwork to true, or leave them out.'] : [],
  privateNetwork && cloud != 'AzureCloud' ? ['privateNetwork knows the DNS zones of Azure\'s public cloud only: set it to false and bring your own network.'] : [],
  signalR && empty(signalROrigins) ? ['signalR is on but no page may connect: name them in signalROrigins, or set signalR to false.'] : [],
  !signalR && !empty(signalROrigins) ? ['signalROrigins without the service: set signalR to true, or leave them out.'] : [],
  empty(tooSmall) ? [] : ['operatorAddresses has ${join(tooSmall, ', ')}: write single addresses without /32, and ranges up to /30.'],
  privateNetwork && networkSize > 22 ? ['networkPrefix has no room for two subnets: give it as addresses of a /22 or more, like 10.20.0.0/22.'] : [],
  alerts && contains(['otlp', 'none'], telemetry) ? ['alerts read telemetry of Application Insights, where none is sent: set alerts to false, or telemetry to opencensus.'] : [],
  telemetry == 'otlp' && !contains(givenSettings, 'OTEL_EXPORTER_OTLP_ENDPOINT') ? ['telemetry = otlp needs an address: add OTEL_EXPORTER_OTLP_ENDPOINT to extraSettings.'] : [],
  logDailyGb == 0 ? ['logDailyGb = 0 would drop every log: set it to at least 1, or to -1 for no limit.'] : [],
  !alerts && budgetUsdPerDay > 0 ? ['budgetUsdPerDay is an alert: set alerts to true, or leave it at 0.'] : [],
  !alerts && !empty(alertEmails) ? ['alertEmails get nothing: set alerts to true, or leave them out.'] : [],
  empty(secretsOfficer) || length(secretsOfficer) == 36 ? [] : ['secretsOfficer is not an object id: take it from az ad signed-in-user show --query id -o tsv.'],
  empty(taken) ? [] : ['This template sets ${join(taken, ', ')} itself: take them out of secretSettings and extraSettings.'],
  empty(twice) ? [] : ['Both secretSettings and extraSettings set ${join(twice, ', ')}: keep one.'],
  empty(unwanted) ? [] : ['The Flex Consumption plan refuses ${join(unwanted, ', ')}: take them out of secretSettings and extraSettings.']
)
var place = empty(refusals) ? location : fail('These parameters do not fit together. ${join(refusals, ' ')}')

var suffix = uniqueString(resourceGroup().id, toLower(name))
var unique = '${toLower(name)}-${take(suffix, 6)}'

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${unique}-identity'
  location: place
  tags: tags
}

module network 'modules/network.bicep' = if (privateNetwork) {
  name: '${unique}-network'
  params: {
    name: unique
    location: place
    tags: tags
    prefix: networkPrefix
  }
}

module storage 'modules/storage.bicep' = {
  name: '${unique}-storage'
  params: {
    name: 'st${suffix}'
    location: place
    tags: tags
    zoneRedundant: zoneRedundant
    isPrivate: privateNetwork
    operatorAddresses: operatorAddresses
    identityId: identity.id
    principalId: identity.properties.principalId
    subnetId: privateNetwork ? network!.outputs.endpointSubnetId : ''
    blobZoneId: privateNetwork ? network!.outputs.blobZoneId : ''
    tableZoneId: privateNetwork ? network!.outputs.tableZoneId : ''
  }
}

module monitor 'modules/monitor.bicep' = {
  name: '${unique}-monitor'
  params: {
    name: unique
    location: place
    tags: tags
    retentionDays: logRetentionDays
    dailyGb: logDailyGb
    identityId: identity.id
    principalId: identity.properties.principalId
  }
}

module vault 'modules/vault.bicep' = {
  name: '${unique}-vault'
  params: {
    name: 'kv-${suffix}'
    location: place
    tags: tags
    retentionDays: vaultRetentionDays
    recover: recoverVault
    isPrivate: privateNetwork
    operatorAddresses: operatorAddresses
    identityId: identity.id
    principalId: identity.properties.principalId
    officerId: secretsOfficer
    workspaceId: monitor.outputs.workspaceId
    subnetId: privateNetwork ? network!.outputs.endpointSubnetId : ''
    zoneId: privateNetwork ? network!.outputs.vaultZoneId : ''
  }
}

module openAi 'modules/openai.bicep' = if (!empty(openAiLocation)) {
  name: '${unique}-openai'
  params: {
    name: '${unique}-${openAiRegion}'
    location: openAiRegion
    networkLocation: place
    tags: tags
    deployments: openAiDeployments
    isPrivate: privateNetwork
    identityId: identity.id
    principalId: identity.properties.principalId
    subnetId: privateNetwork ? network!.outputs.endpointSubnetId : ''
    zoneId: privateNetwork ? network!.outputs.openAiZoneId : ''
  }
}

module openAiSecond 'modules/openai.bicep' = if (!empty(openAiSecondLocation)) {
  name: '${unique}-openai-second'
  params: {
    name: '${unique}-${openAiSecondRegion}'
    location: openAiSecondRegion
    networkLocation: place
    tags: tags
    deployments: openAiDeployments
    isPrivate: privateNetwork
    identityId: identity.id
    principalId: identity.properties.principalId
    subnetId: privateNetwork ? network!.outputs.endpointSubnetId : ''
    zoneId: privateNetwork ? network!.outputs.openAiZoneId : ''
  }
}

module signalRService 'modules/signalr.bicep' = if (signalR) {
  name: '${unique}-signalr'
  params: {
    name: '${unique}-signalr'
    location: place
    tags: tags
    origins: signalROrigins
    identityId: identity.id
    principalId: identity.properties.principalId
  }
}

// It takes something from every module with a role, so that all roles stand before it starts: its first start would
// otherwise be refused by storage and vault.
module app 'modules/app.bicep' = {
  name: '${unique}-app'
  params: {
    name: unique
    location: place
    tags: tags
    identityId: identity.id
    identityClientId: identity.properties.clientId
    storageName: storage.outputs.name
    tablesEndpoint: storage.outputs.tablesEndpoint
    packageContainer: storage.outputs.packageContainer
    vaultUri: vault.outputs.uri
    insightsConnection: monitor.outputs.connection
    telemetry: telemetry
    routesFile: routesFile
    openAiEndpoint: empty(openAiLocation) ? '' : openAi!.outputs.endpoint
    openAiSecondEndpoint: empty(openAiSecondLocation) ? '' : openAiSecond!.outputs.endpoint
    signalREndpoint: signalR ? signalRService!.outputs.endpoint : ''
    secretSettings: secretSettings
    extraSettings: extraSettings
    allowedOrigins: allowedOrigins
    instanceMemory: instanceMemory
    concurrency: concurrency
    maximumInstances: maximumInstances
    alwaysReady: alwaysReady
    zoneRedundant: zoneRedundant
    isPublic: publicEndpoint
    isPrivate: privateNetwork
    appSubnetId: privateNetwork ? network!.outputs.appSubnetId : ''
    endpointSubnetId: privateNetwork ? network!.outputs.endpointSubnetId : ''
    zoneId: privateNetwork ? network!.outputs.sitesZoneId : ''
  }
}

module alertRules 'modules/alerts.bicep' = if (alerts) {
  name: '${unique}-alerts'
  params: {
    name: unique
    location: place
    tags: tags
    insightsId: monitor.outputs.insightsId
    workspaceId: monitor.outputs.workspaceId
    emails: alertEmails
    seconds: alertSeconds
    errorPercent: alertErrorPercent
    budgetUsdPerDay: budgetUsdPerDay
  }
}

@description('The address of the router. Clients use it with /v1 behind it.')
output endpoint string = app.outputs.endpoint

@description('The name of the function app, to publish to.')
output appName string = app.outputs.name

@description('The name of the vault, to set secrets in.')
output vaultName string = vault.outputs.name

@description('The client id of the router\'s identity.')
output identityClientId string = identity.properties.clientId

@description('The object id of the router\'s identity, to give it roles on what this template does not create.')
output identityPrincipalId string = identity.properties.principalId

@description('The address of the SignalR service, if there is one.')
output signalREndpoint string = signalR ? signalRService!.outputs.endpoint : ''
