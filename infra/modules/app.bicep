// The function app on the Flex Consumption plan, and every setting it has.

@description('The name of the app, which is part of its address.')
@minLength(2)
@maxLength(58)
param name string

@description('Where the app lives.')
param location string

@description('Tags of every resource.')
param tags object

@description('The id of the router\'s identity.')
param identityId string

@description('The client id of the router\'s identity.')
param identityClientId string

@description('The storage account of the host.')
param storageName string

@description('The address of the table service.')
param tablesEndpoint string

@description('The address of the container of packages.')
param packageContainer string

@description('The address of the vault, with a slash at its end.')
param vaultUri string

@description('Where telemetry is sent.')
param insightsConnection string

@description('By which package telemetry is sent.')
@allowed(['opencensus', 'azuremonitor', 'otlp', 'none'])
param telemetry string

@description('The routes file, by its path in the package.')
param routesFile string

@description('The address of the Azure OpenAI account; empty without one.')
param openAiEndpoint string

@description('The address of the second Azure OpenAI account; empty without one.')
param openAiSecondEndpoint string

@description('The address of the SignalR service; empty without one.')
param signalREndpoint string

@description('App settings that hold a secret of the vault, by the name of the secret.')
param secretSettings object

@description('More app settings.')
param extraSettings object

@description('Pages of other hosts that may call the router.')
param allowedOrigins string[]

@description('Memory of one instance in MB.')
@allowed([512, 2048, 4096])
param instanceMemory int

@description('Requests that one instance serves at the same time.')
@minValue(1)
@maxValue(1000)
param concurrency int

@description('The most instances there may be.')
@minValue(1)
@maxValue(1000)
param maximumInstances int

@description('Instances that are kept running.')
@minValue(0)
@maxValue(100)
param alwaysReady int

@description('Spread the instances over availability zones.')
param zoneRedundant bool

@description('Whether the app can be reached from the internet.')
param isPublic bool

@description('Send from the private network.')
param isPrivate bool

@description('The subnet that the app sends from; empty without a private network.')
param appSubnetId string

@description('The subnet of private endpoints.')
param endpointSubnetId string

@description('The DNS zone of function apps.')
param zoneId string

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: '${name}-plan'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource site 'Microsoft.Web/sites@2024-04-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': 'router' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identityId
    publicNetworkAccess: isPublic ? 'Enabled' : 'Disabled'
    virtualNetworkSubnetId: isPrivate ? appSubnetId : null
    siteConfig: {
      minTlsVersion: '1.2'
      ftpsState: 'Disabled'
      cors: { allowedOrigins: allowedOrigins }
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainer
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.13'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemory
        maximumInstanceCount: maximumInstances
        alwaysReady: alwaysReady > 0 ? [{ name: 'http', instanceCount: alwaysReady }] : []
        triggers: { http: { perInstanceConcurrency: concurrency } }
      }
    }
  }

  // The whole set of settings: what is not here is taken away.
  resource settings 'config' = {
    name: 'appsettings'
    properties: union(
      {
        AzureWebJobsStorage__accountName: storageName
        AzureWebJobsStorage__credential: 'managedidentity'
        AzureWebJobsStorage__clientId: identityClientId
        AzureWebJobsDisableHomepage: 'true'
        AZURE_CLIENT_ID: identityClientId
        ROUTER_CONFIG: routesFile
        ROUTER_TABLES: tablesEndpoint
        ROUTER_KEY_VAULT: vaultUri
        ROUTER_TELEMETRY: telemetry
        APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnection
        APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'Authorization=AAD;ClientId=${identityClientId}'
      },
      empty(openAiEndpoint) ? {} : { AZURE_OPENAI_ENDPOINT: openAiEndpoint },
      empty(signalREndpoint) ? {} : { ROUTER_SIGNALR: signalREndpoint },
      empty(openAiSecondEndpoint) ? {} : { AZURE_OPENAI_SECOND_ENDPOINT: openAiSecondEndpoint },
      // Without a version, so that the latest is taken; the slash at the end is part of that.
      toObject(items(secretSettings), item => item.key, item => '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${item.value}/)'),
      extraSettings
    )
  }
}

module endpoint 'endpoint.bicep' = if (isPrivate && !isPublic) {
  name: 'endpoint-${name}-app'
  params: {
    name: '${name}-app'
    location: location
    tags: tags
    targetId: site.id
    group: 'sites'
    subnetId: endpointSubnetId
    zoneId: zoneId
  }
}

@description('The name of the app.')
output name string = site.name

@description('The address of the app.')
output endpoint string = 'https://${site.properties.defaultHostName}'
