// An Azure OpenAI account that takes tokens only, and its models.

@description('A model of the account.')
type modelDeployment = {
  @description('What the routes file calls `model`.')
  name: string
  @description('The model, as Azure names it.')
  model: string
  @description('The version of the model.')
  version: string
  @description('Where requests are processed.')
  sku: 'GlobalStandard' | 'DataZoneStandard' | 'Standard'
  @description('Thousands of tokens per minute.')
  capacity: int
}

@description('The name of the account, which is part of its address.')
@minLength(2)
@maxLength(64)
param name string

@description('Where the account lives.')
param location string

@description('Where the private network lives.')
param networkLocation string

@description('Tags of every resource.')
param tags object

@description('The models.')
param deployments modelDeployment[]

@description('Reach it through a private endpoint only.')
param isPrivate bool

@description('The id of the router\'s identity.')
param identityId string

@description('The object id of the router\'s identity, which asks the models.')
param principalId string

@description('The subnet of the private endpoint.')
param subnetId string

@description('The DNS zone of Azure OpenAI accounts.')
param zoneId string

var openAiUser = '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd'

resource account 'Microsoft.CognitiveServices/accounts@2025-06-01' = {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: { name: 'S0' }
  properties: {
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: { defaultAction: isPrivate ? 'Deny' : 'Allow' }
  }
}

// One after another: the service refuses changes that overlap.
@batchSize(1)
resource models 'Microsoft.CognitiveServices/accounts/deployments@2025-06-01' = [
  for each in deployments: {
    parent: account
    name: each.name
    sku: {
      name: each.sku
      capacity: each.capacity
    }
    properties: {
      model: {
        format: 'OpenAI'
        name: each.model
        version: each.version
      }
      versionUpgradeOption: 'OnceCurrentVersionExpired'
    }
  }
]

resource routerAsks 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, identityId, openAiUser)
  scope: account
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', openAiUser)
    principalId: principalId
    principalType: 'ServicePrincipal'
  }
}

module endpoint 'endpoint.bicep' = if (isPrivate) {
  name: 'endpoint-${name}'
  params: {
    name: '${name}-account'
    location: networkLocation
    tags: tags
    targetId: account.id
    group: 'account'
    subnetId: subnetId
    zoneId: zoneId
  }
  dependsOn: [
    models // an account that is changing its models refuses the endpoint
  ]
}

@description('The address of the account.')
output endpoint string = account.properties.endpoint
